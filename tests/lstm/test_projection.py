import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featherweight.quality.evaluation import validation_scores
from lstm.batching import pad
from lstm.config import ModelConfig, OptimizationConfig
from lstm.encoder import LSTMClassifier
from lstm.fit import EncodedSplit, fit
from lstm.projection import Projection, as_stored, masked, project, projected
from lstm.storage import Format, rounded

CONFIG = OptimizationConfig(
    epochs=4, min_steps=1, batch_size=8, learning_rate=0.02, patience=10, device="cpu"
)


def network() -> LSTMClassifier:
    torch.manual_seed(0)
    return LSTMClassifier(20, 3, ModelConfig(embedding_dim=6, hidden_dim=5)).eval()


def split(n: int, seed: int) -> EncodedSplit:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 3
    ids = [[2 + int(label), *rng.integers(5, 20, rng.integers(1, 6)).tolist()] for label in labels]
    return EncodedSplit(ids, labels)


def formats(module: nn.Module, matrices: Format = "int4") -> dict[str, Format]:
    return {
        name: matrices if parameter.dim() == 2 else "fp16"
        for name, parameter in module.named_parameters()
    }


def halves(module: nn.Module) -> dict[str, Tensor]:
    """Returns masks that keep every second number of each matrix."""
    return {
        name: (torch.arange(parameter.numel()) % 2 == 0).reshape(parameter.shape)
        for name, parameter in module.named_parameters()
        if parameter.dim() == 2
    }


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def answer(module: nn.Module) -> Tensor:
    return module(torch.tensor([[2, 7, 9, 4], [5, 3, 0, 0]]), torch.tensor([4, 2]))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    answer(module).square().sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


PROJECTIONS: dict[str, Callable[[nn.Module], Projection]] = {
    "as stored": lambda module: as_stored(formats(module)),
    "masked": lambda module: masked(halves(module)),
    "both": lambda module: masked(halves(module), as_stored(formats(module))),
}
every = pytest.mark.parametrize("make", PROJECTIONS.values(), ids=[*PROJECTIONS])


@every
def test_forward_and_backward_compute_with_projected_weights(
    make: Callable[[nn.Module], Projection],
) -> None:
    module = network()
    projection = make(module)
    exactly = answer(module)
    twin, untouched = copy.deepcopy(module), copy.deepcopy(module)
    project(twin, projection)
    with projected(module, projection):
        assert torch.equal(answer(module), answer(twin))
        assert not torch.equal(answer(module), exactly)
        found = gradients(module)
    assert equal(found, gradients(twin))
    assert not equal(found, gradients(untouched))
    # Straight-through estimator: pruned parameters still have gradients.
    assert found["head.weight"].count_nonzero() == found["head.weight"].numel()


@every
def test_exact_weights_are_restored(make: Callable[[nn.Module], Projection]) -> None:
    module = network()
    before = weights(module)
    places = [parameter.data_ptr() for parameter in module.parameters()]
    with projected(module, make(module)):
        assert not equal(weights(module), before)
    assert equal(weights(module), before)
    # An optimizer refers to these tensors.
    assert [parameter.data_ptr() for parameter in module.parameters()] == places
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exact_weights_are_restored_after_an_error(error: type[BaseException]) -> None:
    module = network()
    before = weights(module)
    with pytest.raises(error), projected(module, as_stored(formats(module))):
        raise error
    assert equal(weights(module), before)


def test_no_projection_changes_nothing() -> None:
    module = network()
    before = weights(module)
    with projected(module, None):
        assert equal(weights(module), before)
    assert equal(weights(module), before)


def test_each_parameter_is_rounded_to_its_own_format() -> None:
    module = network()
    before = weights(module)
    storage = {**formats(module, "int8"), "embedding.weight": "int4", "head.weight": "fp32"}
    project(module, as_stored(storage))  # type: ignore[arg-type]
    after = weights(module)
    assert equal(after, {name: rounded(before[name], storage[name]) for name in before})  # type: ignore[arg-type]
    assert torch.equal(after["head.weight"], before["head.weight"])


def test_mask_zeroes_masked_values_only() -> None:
    module = network()
    before, masks = weights(module), halves(module)
    del masks["head.weight"]
    project(module, masked(masks))
    for name, parameter in module.named_parameters():
        kept = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[kept], before[name][kept])
        assert not parameter[~kept].any()


def test_mask_is_applied_before_rounding() -> None:
    module = network()
    before, masks = weights(module), halves(module)
    # The scale of the row must depend on the remaining numbers only.
    before["head.weight"][:, 1] = 1000
    module.load_state_dict(before)
    project(module, masked(masks, as_stored(formats(module, "int8"))))
    assert torch.equal(
        module.head.weight, rounded(before["head.weight"] * masks["head.weight"], "int8")
    )
    assert module.head.weight[:, 0].all()


def test_steps_smaller_than_the_rounding_accumulate() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        with projected(module, lambda _, parameter: parameter.round()):
            (module(torch.ones(1, 1)) - 3).square().sum().backward()
        optimizer.step()
    assert module.weight.item() != 3
    assert module.weight.round().item() == 3


@every
def test_validation_uses_the_projected_network(
    tmp_path: Path, make: Callable[[nn.Module], Projection]
) -> None:
    module, validation = network(), split(21, seed=2)
    projection = make(module)
    progress = fit(module, split(45, seed=1), validation, CONFIG, "cpu", tmp_path / "state",
                   projection=projection)  # fmt: skip
    best = max(progress.history, key=lambda record: record["validation_macro_f1"])
    order = sorted(range(21), key=lambda row: len(validation.ids[row]))
    batch = pad([validation.ids[row] for row in order])

    def scores() -> dict[str, float]:
        with torch.no_grad():
            logits = module.eval()(batch.input_ids, batch.lengths).numpy()
        return validation_scores(validation.labels[order], logits)

    exact = scores()
    before = weights(module)
    project(module, projection)
    # The final weights are not projected.
    assert not equal(weights(module), before)
    found = scores()
    assert {name: best[name] for name in found} == pytest.approx(found, rel=1e-6)
    assert found["validation_macro_f1"] == best["validation_macro_f1"]
    assert exact["validation_loss"] != pytest.approx(found["validation_loss"], rel=1e-6)


def test_projection_changes_the_training(tmp_path: Path) -> None:
    plain, through = network(), network()
    data = split(45, seed=1), split(21, seed=2)
    fit(plain, *data, CONFIG, "cpu", tmp_path / "plain")
    fit(through, *data, CONFIG, "cpu", tmp_path / "through",
        projection=as_stored(formats(through)))  # fmt: skip
    assert not equal(weights(plain), weights(through))
    same = network()
    fit(same, *data, CONFIG, "cpu", tmp_path / "same", projection=lambda _, parameter: parameter)
    assert equal(weights(plain), weights(same))
