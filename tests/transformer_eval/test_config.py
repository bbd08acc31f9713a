from pathlib import Path
from typing import Any

import pytest

from featherweight.errors import UsageError
from transformer_eval.config import FeaturesConfig, FinetuneConfig, VersusConfig
from transformer_eval.registry import REGISTRY

NAN, INFINITY = float("nan"), float("inf")


def test_a_fine_tuning_is_told_what_suits_transformers_and_not_what_suits_an_lstm() -> None:
    config = FinetuneConfig()
    assert (config.learning_rate, config.min_steps, config.label_smoothing) == (0.0, 1, 0.0)
    assert (config.batch_size, config.epochs, config.patience) == (32, 5, 2)
    assert (config.schedule, config.warmup_ratio, config.precision) == ("linear", 0.1, "auto")
    assert (config.max_length, config.gradient_accumulation_steps, config.seed) == (128, 1, 0)


def test_features_are_the_mean_of_the_states_by_default() -> None:
    config = FeaturesConfig()
    assert (config.pooling, config.max_length, config.batch_size) == ("mean", 128, 32)
    assert config.save_embeddings is None


def test_a_comparison_times_one_text_and_a_batch_by_default() -> None:
    config = VersusConfig()
    assert (config.batch_sizes, config.split, config.latency_only) == ("1,32", "test", False)
    assert (config.weights, config.data) == (None, "")


@pytest.mark.parametrize(
    ("config", "fine_tuned"),
    [(FinetuneConfig(), False), (FeaturesConfig(), False), (VersusConfig(), True)],
    ids=lambda it: type(it).__name__,
)
def test_the_default_model_is_in_the_registry_and_fits_the_verb(
    config: Any, fine_tuned: bool
) -> None:
    assert [REGISTRY[name].fine_tuned for name in config.model] == [fine_tuned]


@pytest.mark.parametrize("kind", [FinetuneConfig, FeaturesConfig, VersusConfig])
def test_no_config_shares_its_list_of_models_with_another(kind: type[Any]) -> None:
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
def test_a_number_of_a_fine_tuning_out_of_range_is_refused_by_its_flag(
    flag: str, value: Any
) -> None:
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
def test_a_number_of_a_fine_tuning_at_the_edge_is_taken(flag: str, value: Any) -> None:
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
def test_a_number_of_features_out_of_range_is_refused_by_its_flag(flag: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{flag} ") as caught:
        FeaturesConfig(**{flag: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("flag", "value"), [("max_length", 3), ("batch_size", 1)])
def test_a_number_of_features_at_the_edge_is_taken(flag: str, value: int) -> None:
    assert getattr(FeaturesConfig(**{flag: value}), flag) == value


@pytest.mark.parametrize("models", [["a", "b"], ["all"]])
def test_one_file_of_embeddings_does_not_take_those_of_several_models(models: list[str]) -> None:
    with pytest.raises(UsageError, match="--save_embeddings"):
        FeaturesConfig(model=models, save_embeddings=Path("x.npz"))
    assert FeaturesConfig(model=["a"], save_embeddings=Path("x.npz")).model == ["a"]


@pytest.mark.parametrize("kind", [FinetuneConfig, FeaturesConfig])
def test_overwrite_and_resume_exclude_each_other(kind: type[Any]) -> None:
    with pytest.raises(UsageError, match="--overwrite and --resume"):
        kind(overwrite=True, resume=True)


@pytest.mark.parametrize("kind", [FinetuneConfig, FeaturesConfig, VersusConfig])
def test_a_config_cannot_be_changed_after_it_was_checked(kind: type[Any]) -> None:
    with pytest.raises(AttributeError):
        kind().model = ["another"]
