from pathlib import Path
from typing import Any

import pytest

from featherweight.errors import UsageError
from transformer_eval.config import FeaturesConfig, FinetuneConfig, TransformerTestConfig
from transformer_eval.registry import REGISTRY

NAN, INFINITY = float("nan"), float("inf")


def test_defaults_of_fine_tuning_differ_from_those_of_an_lstm() -> None:
    config = FinetuneConfig()
    assert (config.learning_rate, config.min_steps, config.label_smoothing) == (0.0, 1, 0.0)
    assert (config.batch_size, config.epochs, config.patience) == (32, 5, 2)
    assert (config.schedule, config.warmup_ratio, config.precision) == ("linear", 0.1, "auto")
    assert (config.max_length, config.gradient_accumulation_steps, config.seed) == (128, 1, 0)


def test_defaults_of_features() -> None:
    config = FeaturesConfig()
    assert (config.pooling, config.max_length, config.batch_size) == ("mean", 128, 32)
    assert config.save_embeddings is None


def test_defaults_of_a_comparison() -> None:
    config = TransformerTestConfig()
    assert (config.batch_sizes, config.split, config.latency_only) == ("1,32", "test", False)
    assert (config.weights, config.data) == (None, "")


@pytest.mark.parametrize(
    ("config", "fine_tuned"),
    [(FinetuneConfig(), False), (FeaturesConfig(), False), (TransformerTestConfig(), True)],
    ids=lambda config: type(config).__name__,
)
def test_default_model_is_in_the_registry(config: Any, fine_tuned: bool) -> None:
    assert [REGISTRY[name].fine_tuned for name in config.model] == [fine_tuned]


@pytest.mark.parametrize("kind", [FinetuneConfig, FeaturesConfig, TransformerTestConfig])
def test_configs_do_not_share_their_default_list(kind: type[Any]) -> None:
    assert kind().model is not kind().model


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max_length", 2),
        ("max_length", -1),
        ("batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("epochs", 0),
        ("min_steps", 0),
        ("patience", 0),
        ("learning_rate", -1e-5),
        ("learning_rate", INFINITY),
        ("learning_rate", NAN),
        ("warmup_ratio", -0.01),
        ("warmup_ratio", 1.0),
        ("warmup_ratio", NAN),
        ("label_smoothing", -0.1),
        ("label_smoothing", 1.0),
        ("weight_decay", -0.01),
        ("weight_decay", NAN),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", INFINITY),
        ("seed", -1),
        ("seed", 2**32),
        ("name", "a/b"),
        ("name", ".."),
    ],
)
def test_finetune_option_out_of_range_is_refused(flag: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        FinetuneConfig(**{flag: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max_length", 3),
        ("gradient_accumulation_steps", 1),
        ("learning_rate", 0.0),
        ("warmup_ratio", 0.0),
        ("label_smoothing", 0.0),
        ("weight_decay", 0.0),
        ("seed", 2**32 - 1),
    ],
)
def test_finetune_option_at_its_limit_is_accepted(flag: str, value: Any) -> None:
    assert getattr(FinetuneConfig(**{flag: value}), flag) == value


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max_length", 2),
        ("max_length", 0),
        ("batch_size", 0),
        ("batch_size", -3),
        ("name", "a/b"),
        ("name", "."),
    ],
)
def test_features_option_out_of_range_is_refused(flag: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        FeaturesConfig(**{flag: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("flag", "value"), [("max_length", 3), ("batch_size", 1)])
def test_features_option_at_its_limit_is_accepted(flag: str, value: int) -> None:
    assert getattr(FeaturesConfig(**{flag: value}), flag) == value


@pytest.mark.parametrize("models", [["a", "b"], ["all"]])
def test_save_embeddings_needs_a_single_model(models: list[str]) -> None:
    with pytest.raises(UsageError, match="--save_embeddings"):
        FeaturesConfig(model=models, save_embeddings=Path("x.npz"))
    assert FeaturesConfig(model=["a"], save_embeddings=Path("x.npz")).model == ["a"]


@pytest.mark.parametrize("kind", [FinetuneConfig, FeaturesConfig])
def test_overwrite_and_resume_exclude_each_other(kind: type[Any]) -> None:
    with pytest.raises(UsageError, match="--overwrite and --resume"):
        kind(overwrite=True, resume=True)


@pytest.mark.parametrize("kind", [FinetuneConfig, FeaturesConfig, TransformerTestConfig])
def test_config_is_immutable(kind: type[Any]) -> None:
    with pytest.raises(AttributeError):
        kind().model = ["another"]
