from typing import Any

import pytest

from featherweight.errors import UsageError
from lstm.config import PRESETS, ModelConfig, TrainConfig, preset


def test_defaults_are_the_feather_preset() -> None:
    assert preset("feather") == TrainConfig()


def test_classic_is_the_published_architecture() -> None:
    config = preset("classic")
    assert (config.num_layers, config.embedding_dim, config.hidden_dim) == (3, 256, 64)
    assert (config.dropout, config.bidirectional, config.pooling) == (0.2, False, "last")
    # Cross-entropy without smoothing or weights.
    assert (config.label_smoothing, config.class_weights, config.word_dropout) == (0.0, "none", 0.0)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_carries_its_name_and_gives_way_to_overrides(name: Any) -> None:
    config = preset(name, hidden_dim=7)
    assert (config.preset, config.hidden_dim) == (name, 7)


def test_presets_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        PRESETS["feather"] = {}  # type: ignore[index]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", 2),
        ("min_frequency", 0),
        ("max_length", 0),
        ("embedding_dim", 0),
        ("hidden_dim", -1),
        ("num_layers", 0),
        ("epochs", 0),
        ("min_steps", 0),
        ("batch_size", 0),
        ("patience", 0),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("embedding_dropout", -0.1),
        ("word_dropout", 1.5),
        ("label_smoothing", 1.0),
        ("warmup_ratio", 1.01),
        ("warmup_ratio", -0.01),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("max_grad_norm", -1.0),
        ("weight_decay", -0.01),
        ("weight_decay", float("nan")),
        ("weight_decay", float("inf")),
        ("seed", -1),
        ("seed", 2**32),
        ("name", "../elsewhere"),
        ("name", "a/b"),
        ("name", ".."),
        ("name", "."),
        ("name", ".hidden"),
        ("name", "-flag"),
        ("name", "two\nlines"),
        ("name", "\x1b[31mred"),
    ],
)
def test_value_out_of_range_is_refused(flag: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        TrainConfig(**{flag: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("vocab_size", 3),
        ("dropout", 0.0),
        ("warmup_ratio", 0.0),
        ("warmup_ratio", 1.0),
        ("weight_decay", 0.0),
        ("seed", 2**32 - 1),
        ("name", "a run (1) é"),
    ],
)
def test_value_at_the_limit_is_accepted(flag: str, value: Any) -> None:
    assert getattr(TrainConfig(**{flag: value}), flag) == value


def test_overwrite_and_resume_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--overwrite and --resume"):
        TrainConfig(overwrite=True, resume=True)


def test_config_is_immutable() -> None:
    with pytest.raises(AttributeError):
        ModelConfig().hidden_dim = 0  # type: ignore[misc]
