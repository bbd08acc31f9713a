from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.errors import WeightsError
from lstm.checkpoint import Progress, load_checkpoint, save_checkpoint

SCALER = torch.amp.GradScaler("cpu", enabled=False)


def trained(seed: int = 0, inputs: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Returns a module and an optimizer after two steps."""
    torch.manual_seed(seed)
    module = nn.Linear(inputs, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.randn(4, inputs)).square().sum().backward()
        optimizer.step()
    return module, optimizer


def with_scores(*scores: float) -> Progress:
    progress = Progress()
    for score in scores:
        module, _ = trained(seed=progress.epoch)
        progress.add({"validation_macro_f1": score}, module, SCALER)
    return progress


@pytest.mark.parametrize(
    ("scores", "epochs_without_gain", "best"),
    [
        ([], 0, -1.0),
        ([0.4], 0, 0.4),
        ([0.0], 0, 0.0),
        ([0.4, 0.5], 0, 0.5),
        ([0.4, 0.5, 0.3, 0.49], 2, 0.5),
        ([0.5, 0.5, 0.5], 2, 0.5),  # an equal score is not an improvement
        ([0.5, 0.1, 0.6], 0, 0.6),
    ],
)
def test_epochs_since_the_best_one(
    scores: list[float], epochs_without_gain: int, best: float
) -> None:
    progress = with_scores(*scores)
    assert progress.epoch == len(scores)
    assert (progress.epochs_without_gain, progress.best_f1) == (epochs_without_gain, best)


def test_best_weights_are_a_copy_of_those_of_the_best_epoch() -> None:
    progress = Progress()
    module, _ = trained()
    progress.add({"validation_macro_f1": 0.5}, module, SCALER)
    best = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    progress.add({"validation_macro_f1": 0.4}, module, SCALER)
    assert torch.equal(progress.best_weights["weight"], best)


def test_saved_state_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    module, optimizer = trained(seed=1)
    progress = with_scores(0.1, 0.3, 0.2)
    save_checkpoint(path, module, optimizer, progress)

    other, other_optimizer = trained(seed=2)
    loaded = load_checkpoint(path, other, other_optimizer)

    assert loaded.history == progress.history
    assert (loaded.best_f1, loaded.scaler) == (progress.best_f1, progress.scaler)
    assert loaded.best_weights.keys() == progress.best_weights.keys()
    for name, tensor in progress.best_weights.items():
        assert torch.equal(loaded.best_weights[name], tensor)
    for name, tensor in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    expected, state = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert state.keys() == expected.keys()
    for index, values in expected.items():
        assert values.keys() == state[index].keys()
        for name, tensor in values.items():
            assert torch.equal(state[index][name], tensor)


def test_next_step_after_loading_equals_uninterrupted_step(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    module, optimizer = trained(seed=1)
    save_checkpoint(path, module, optimizer, with_scores(0.1))
    other, other_optimizer = trained(seed=2)
    load_checkpoint(path, other, other_optimizer)
    inputs = torch.randn(4, 3)
    for network, steps in ((module, optimizer), (other, other_optimizer)):
        steps.zero_grad()
        network(inputs).square().sum().backward()
        steps.step()
    assert torch.equal(module.state_dict()["weight"], other.state_dict()["weight"])


def test_saving_replaces_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for scores in ([0.1], [0.1, 0.2]):
        save_checkpoint(path, *trained(), with_scores(*scores))
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path, *trained()).epoch == 2


@pytest.mark.parametrize("length", [0, 7, 8, 100, 0.5, 0.99])
def test_truncated_checkpoint_is_refused(tmp_path: Path, length: float) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, *trained(), with_scores(0.1))
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content)) if 0 < length < 1 else int(length)])
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(path, *trained())
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, *trained(inputs=4), with_scores(0.1))
    with pytest.raises(WeightsError, match="--overwrite") as caught:
        load_checkpoint(path, *trained(inputs=3))
    assert "\n" not in str(caught.value)


def test_an_altered_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    module, optimizer = trained()
    save_checkpoint(path, module, optimizer, with_scores(0.5))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"cannot be resumed \(it was altered"):
        load_checkpoint(path, module, optimizer)
