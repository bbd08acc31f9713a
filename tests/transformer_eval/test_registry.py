import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from featherweight.errors import UsageError
from transformer_eval.normalization import NORMALIZERS
from transformer_eval.registry import EMOTIONS, REGISTRY, Pretrained, models

# Millions, from papers and model cards; DeBERTa including its 98 (large: 131) of embeddings.
PARAMETERS = {
    "bert-base": 110,
    "distilbert": 67,
    "bertweet-base": 135,
    "bertweet-large": 355,
    "cardiff-roberta": 125,
    "modernbert-base": 149,
    "deberta-small": 142,
    "deberta-base": 184,
    "deberta-large": 435,
    "electra-small": 13.5,
    "electra-base": 109,
    "electra-large": 335,
    "minilm": 22.7,
    "bert-base-emotion": 110,
    "bert-base-emotion-savani": 110,
    "distilbert-emotion": 67,
    "roberta-base-emotion": 125,
    "albert-base-emotion": 11.7,
}
LAYERS = {
    "distilbert": 6, "distilbert-emotion": 6, "deberta-small": 6, "minilm": 6,
    "modernbert-base": 22,
    "bertweet-large": 24, "deberta-large": 24, "electra-large": 24,
}  # fmt: skip


def config_of(model: Pretrained) -> Any:
    return AutoConfig.for_model(model.model_type, **model.sizes)


def test_all_models_have_a_published_size() -> None:
    assert set(PARAMETERS) == set(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_architecture_has_the_published_size(name: str) -> None:
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(config_of(REGISTRY[name]))

    count = sum(parameter.numel() for parameter in network.parameters())

    assert count / 1e6 == pytest.approx(PARAMETERS[name], rel=0.02)


@pytest.mark.parametrize("name", REGISTRY)
def test_layers_and_heads_are_as_published(name: str) -> None:
    # The number of heads affects the speed but not the number of parameters.
    config = config_of(REGISTRY[name])

    assert config.num_hidden_layers == LAYERS.get(name, 12)
    width = 32 if name == "minilm" else 64
    assert config.hidden_size == width * config.num_attention_heads


def test_minilm_has_the_shapes_of_its_weights_file() -> None:
    spec = importlib.util.find_spec(str(REGISTRY["minilm"].package))
    if spec is None or spec.origin is None:
        pytest.skip("the package with the files of minilm is not installed")
    folder = Path(spec.origin).parent / "model"
    with safe_open(folder / "model.safetensors", framework="np") as file:
        published = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    published.pop("embeddings.position_ids", None)
    config = config_of(REGISTRY["minilm"])

    with torch.device("meta"):
        network = AutoModel.from_config(config)

    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == published
    heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
    assert config.num_attention_heads == heads


@pytest.mark.parametrize("name", REGISTRY)
def test_entry_is_complete(name: str) -> None:
    model = REGISTRY[name]

    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.hub_id)
    assert model.revision is None or re.fullmatch(r"[0-9a-f]{40}", model.revision)
    assert model.normalizer is None or model.normalizer in NORMALIZERS
    assert model.labels == (EMOTIONS if model.fine_tuned else ())
    assert 0 < model.learning_rate < 1e-3


def test_repositories_are_listed_once() -> None:
    assert len({model.hub_id for model in REGISTRY.values()}) == len(REGISTRY)


def test_all_means_models_with_or_without_a_trained_head() -> None:
    trained, untrained = models(["all"], fine_tuned=True), models(["all"], fine_tuned=False)

    assert sorted(trained + untrained) == sorted(REGISTRY)
    assert all(REGISTRY[name].fine_tuned for name in trained)
    assert not any(REGISTRY[name].fine_tuned for name in untrained)


def test_names_hub_ids_and_folders_are_unchanged() -> None:
    given = ["outputs/mine", "minilm", "someone/a-model", "bert-base"]

    assert models(given, fine_tuned=False) == given
    assert models(given, fine_tuned=True) == given


def test_all_can_be_combined_with_other_models() -> None:
    chosen = models(["someone/a-model", "all"], fine_tuned=True)

    assert chosen == ["someone/a-model", *models(["all"], fine_tuned=True)]


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_no_model_is_refused_with_a_list(fine_tuned: bool) -> None:
    with pytest.raises(UsageError, match="give --model") as error:
        models([], fine_tuned)

    message = str(error.value)
    assert "\n" not in message
    assert ("bert-base," in message) != fine_tuned
    assert ("albert-base-emotion," in message) == fine_tuned
    assert "all" in message and "Hub id" in message and "folder" in message


@pytest.mark.parametrize(
    ("names", "duplicate"),
    [
        (["minilm", "bert-base", "minilm"], "minilm"),
        (["all", "electra-base"], "electra-base"),
        (["electra-base", "all"], "electra-base"),
        (["all", "all"], "bert-base"),
        (["a/b", "a/b", "a/b"], "a/b"),
    ],
)
def test_model_listed_twice_is_refused(names: list[str], duplicate: str) -> None:
    with pytest.raises(UsageError, match=f"^--model lists {duplicate} twice$"):
        models(names, fine_tuned=False)
