"""Training with projected weights: quantization-aware training and training of pruned networks.

Forward and backward pass use the projected (rounded or pruned) parameters, and the optimizer
applies the gradients to the exact ones as if there were no projection. So training finds weights
that work well after projection.

Source: Bengio et al. (2013), Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation (the straight-through estimator); Jacob et al. (2018), section 3
(quantization-aware training).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lstm.storage import Format, rounded

Projection = Callable[[str, Tensor], Tensor]  # name, parameter -> projected parameter


@contextmanager
def projected(module: nn.Module, projection: Projection | None) -> Iterator[None]:
    """Replaces the parameters of a module by projected ones until the context ends."""
    if projection is None:
        yield
        return
    exact = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    project(module, projection)
    try:
        yield
    finally:
        project(module, lambda name, _: exact[name])


@torch.no_grad()
def project(module: nn.Module, projection: Projection) -> None:
    """Replaces the parameters of a module by projected ones."""
    for name, parameter in module.named_parameters():
        parameter.copy_(projection(name, parameter))


def as_stored(storage: Mapping[str, Format]) -> Projection:
    """Returns the projection that rounds each parameter to its storage format."""
    return lambda name, parameter: rounded(parameter, storage[name])


def masked(masks: Mapping[str, Tensor], then: Projection | None = None) -> Projection:
    """Returns the projection that multiplies parameters by masks, followed by another if given."""

    def projection(name: str, parameter: Tensor) -> Tensor:
        if name in masks:
            parameter = parameter * masks[name].to(parameter)
        return then(name, parameter) if then else parameter

    return projection
