from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from featherweight.training.optimizer_state import optimizer_tensors, restore_optimizer

Kind = Callable[..., torch.optim.Optimizer]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def walk(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[Tensor]:
    """Takes steps and returns the weights."""
    for step in range(steps):
        optimizer.zero_grad()
        module(torch.full((2, 3), 1.0 + step)).square().sum().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop])
def test_restored_optimizer_takes_the_same_steps(kind: Kind, tmp_path: Path) -> None:
    module = network()
    optimizer = kind(module.parameters(), lr=0.1)
    walk(module, optimizer, 3)
    save_file(optimizer_tensors(optimizer), tmp_path / "state.safetensors")

    other = network()
    other.load_state_dict(module.state_dict())
    restored = kind(other.parameters(), lr=0.1)
    restore_optimizer(restored, load_file(tmp_path / "state.safetensors"))
    fresh = network()
    fresh.load_state_dict(module.state_dict())

    expected = walk(module, optimizer, 2)
    assert all(map(torch.equal, walk(other, restored, 2), expected))
    afresh = walk(fresh, kind(fresh.parameters(), lr=0.1), 2)
    assert not all(map(torch.equal, afresh, expected))


def test_tensors_are_named_after_parameter_and_state() -> None:
    module = network()
    optimizer = torch.optim.AdamW(module.parameters())
    assert optimizer_tensors(optimizer) == {}
    walk(module, optimizer, 1)
    tensors = optimizer_tensors(optimizer)
    assert set(tensors) == {
        f"{index}.{name}" for index in range(4) for name in ("step", "exp_avg", "exp_avg_sq")
    }
    assert tensors["0.exp_avg"].shape == (4, 3)
    assert tensors["3.step"].item() == 1


def test_parameters_are_numbered_through_the_groups() -> None:
    module = network()
    first, second = module[0].parameters(), module[2].parameters()  # type: ignore[index]
    optimizer = torch.optim.AdamW(
        [{"params": first, "weight_decay": 0.1}, {"params": second, "weight_decay": 0.0}]
    )
    walk(module, optimizer, 1)
    assert optimizer_tensors(optimizer)["2.exp_avg"].shape == (2, 4)
    restore_optimizer(optimizer, optimizer_tensors(optimizer))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_learning_rate_is_unchanged() -> None:
    module = network()
    saved = torch.optim.AdamW(module.parameters(), lr=0.1)
    walk(module, saved, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.001)
    restore_optimizer(optimizer, optimizer_tensors(saved))
    assert optimizer.param_groups[0]["lr"] == 0.001


def test_empty_state() -> None:
    optimizer = torch.optim.AdamW(network().parameters())
    restore_optimizer(optimizer, {})
    assert optimizer_tensors(optimizer) == {}


@pytest.mark.parametrize("name", ["exp_avg", "one.exp_avg", "0.exp_avg.more", "", ".exp_avg"])
def test_invalid_tensors_are_refused(name: str) -> None:
    optimizer = torch.optim.AdamW(network().parameters())
    with pytest.raises(ValueError, match=r".+"):
        restore_optimizer(optimizer, {name: torch.zeros(1)})
    assert optimizer_tensors(optimizer) == {}
