"""Training through what is done to the weights afterwards: rounding, or setting some to zero.

The network computes with projected parameters, forward and backward, and what it learns from that
is added to the exact ones, as if the projection were not there. So it finds weights that are good
once projected.

Source: Bengio et al. (2013), Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation (the straight-through estimator); Jacob et al. (2018), section 3
(quantization-aware training).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lstm.storage import Format, rounded

Projection = Callable[[str, Tensor], Tensor]  # name and value of a parameter -> what computes


@contextmanager
def projected(module: nn.Module, projection: Projection | None) -> Iterator[None]:
    """Lets a module compute with projected parameters; afterwards it has the exact ones again."""
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
    """Replaces the parameters of a module for good."""
    for name, parameter in module.named_parameters():
        parameter.copy_(projection(name, parameter))


def as_stored(storage: Mapping[str, Format]) -> Projection:
    """Returns the projection that rounds each parameter as its format does."""
    return lambda name, parameter: rounded(parameter, storage[name])


def masked(masks: Mapping[str, Tensor], then: Projection | None = None) -> Projection:
    """Returns the projection that sets to zero what a mask does not keep, and then another one."""

    def projection(name: str, parameter: Tensor) -> Tensor:
        kept = parameter * masks[name].to(parameter) if name in masks else parameter
        return then(name, kept) if then else kept

    return projection
