import csv
import importlib.util
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from transformer_eval.random_weights import CLS, PAD, SEP, UNK, build
from transformer_eval.registry import REGISTRY, Pretrained

CORPUS = Path(__file__).parents[2] / "featherweight" / "corpus"
LABELS = ("joy", "sadness", "anger")
# Weights 25 times wider than usual, so that the logits of texts differ clearly and a wrong mask or
# position is detected.
TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": 900, "initializer_range": 0.5,
}  # fmt: skip
# One registry entry per model type, with smaller sizes.
SHRUNKEN: Mapping[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert-base", TINY),
    "distilbert": (
        "distilbert",
        {
            "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48,
            "vocab_size": 900, "initializer_range": 0.5,
        },
    ),
    "roberta": ("bertweet-base", TINY),
    "modernbert": (
        "modernbert-base",
        {**TINY, **dict.fromkeys(["bos_token_id", "cls_token_id"], 2),
         **dict.fromkeys(["eos_token_id", "sep_token_id"], 3)},
    ),
    "deberta-v2": ("deberta-small", {**TINY, "pooler_hidden_size": 32}),
    "electra": ("electra-small", {**TINY, "embedding_size": 16}),
    "albert": ("albert-base-emotion", {**TINY, "embedding_size": 16}),
}  # fmt: skip


def shrunken(model_type: str) -> Pretrained:
    name, sizes = SHRUNKEN[model_type]
    return Pretrained("owner/tiny", model_type, {**REGISTRY[name].sizes, **sizes})


def corpus(split: str) -> list[str]:
    with (CORPUS / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def load(folder: Path) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    )
    return tokenizer, network.eval()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per model type, built from the texts of the validation split."""
    folders = {}
    for model_type in SHRUNKEN:
        folders[model_type] = tmp_path_factory.mktemp(model_type)
        build(shrunken(model_type), corpus("validation"), LABELS, folders[model_type])
    return folders


each_type = pytest.mark.parametrize("model_type", SHRUNKEN)


def test_all_model_types_of_the_registry_are_tested() -> None:
    assert set(SHRUNKEN) == {model.model_type for model in REGISTRY.values()}


@each_type
def test_built_model_loads_with_label_names(built: dict[str, Path], model_type: str) -> None:
    _, network = load(built[model_type])

    assert network.config.model_type == model_type
    assert network.config.id2label == dict(enumerate(LABELS))
    assert network.config.label2id == {label: index for index, label in enumerate(LABELS)}
    assert network.config.hidden_size == 32
    assert network.dtype == torch.float32
    assert sorted(path.suffix for path in built[model_type].iterdir()) == [
        ".json", ".json", ".json", ".safetensors",
    ]  # fmt: skip


@each_type
@torch.inference_mode()
def test_padding_does_not_change_logits(built: dict[str, Path], model_type: str) -> None:
    tokenizer, network = load(built[model_type])
    texts = ["", "so happy", *corpus("test")[:10], " ".join(corpus("test")[10:15])]

    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    together = network(**batch).logits
    alone = [
        network(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts
    ]
    unmasked = network(input_ids=batch["input_ids"]).logits

    assert together.shape == (len(texts), len(LABELS))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)
    # Otherwise the assertion above could not fail.
    assert (together - unmasked).abs().max() > 1e-2
    assert together.std(dim=0).min() > 1e-2


@each_type
@torch.inference_mode()
def test_long_text_is_truncated_to_the_maximum_length(
    built: dict[str, Path], model_type: str
) -> None:
    tokenizer, network = load(built[model_type])

    batch = tokenizer("happy " * 3000, truncation=True, return_tensors="pt")

    # BERTweet reads 128 tokens: two of its 130 positions are unused.
    assert batch["input_ids"].shape == (1, 128 if model_type == "roberta" else 512)
    assert batch["input_ids"][0, -1] == tokenizer.sep_token_id
    assert network(**batch).logits.isfinite().all()


@each_type
def test_special_tokens_are_those_of_the_model(built: dict[str, Path], model_type: str) -> None:
    tokenizer, network = load(built[model_type])

    assert network.config.pad_token_id == tokenizer.pad_token_id == 0
    ids = tokenizer("so happy")["input_ids"]
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == [CLS, SEP]
    assert tokenizer.tokenize("\u4e00") == [UNK]
    assert tokenizer.convert_ids_to_tokens(0) == PAD
    assert len(tokenizer) <= network.get_input_embeddings().num_embeddings


def test_equal_arguments_write_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(shrunken("bert"), corpus("test"), LABELS, tmp_path / name)

    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"model.safetensors", "tokenizer.json"} < set(files)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_random_generators_are_not_changed(tmp_path: Path) -> None:
    build(shrunken("bert"), ["so happy"], LABELS, tmp_path / "first")
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    build(shrunken("bert"), ["so happy"], LABELS, tmp_path / "second")

    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    # The seed of the caller does not change the weights.
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_token_counts_are_close_to_those_of_bert(tmp_path: Path) -> None:
    spec = importlib.util.find_spec(str(REGISTRY["minilm"].package))
    if spec is None or spec.origin is None:
        pytest.skip("the package with the files of minilm is not installed")
    real = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    real.no_padding()
    sizes = {**TINY, "vocab_size": 30522}
    build(Pretrained("owner/tiny", "bert", sizes), corpus("train"), LABELS, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    for split in ("train", "test"):
        texts = corpus(split)
        count = sum(len(ids) for ids in tokenizer(texts)["input_ids"])
        expected = sum(len(encoding.ids) for encoding in real.encode_batch(texts))
        assert count == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(
    ("texts", "vocab_size"),
    [
        ([], 900),
        ([""], 900),
        (["   \n"], 900),
        (["so happy 😂"], 900),
        # More characters than the vocabulary has room for.
        (["".join(map(chr, range(0x4E00, 0x4E00 + 500)))], 50),
        (["".join(map(chr, range(0x400, 0x460)))], 20),
        (["[PAD] [CLS] ▁ ▁▁ ##s #"], 900),
        (["a" * 5000, "b " * 5000], 900),
    ],
)
@torch.inference_mode()
def test_any_texts_give_a_usable_model(tmp_path: Path, texts: list[str], vocab_size: int) -> None:
    sizes = {**TINY, "vocab_size": vocab_size}

    build(Pretrained("owner/tiny", "bert", sizes), texts, LABELS, tmp_path)

    tokenizer, network = load(tmp_path)
    assert len(tokenizer) <= vocab_size
    batch = tokenizer(
        [*texts, "some other text", ""], padding=True, truncation=True, return_tensors="pt"
    )
    assert batch["input_ids"].max() < vocab_size
    assert network(**batch).logits.isfinite().all()


def test_vocabulary_is_at_most_as_large_as_that_of_bert(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = {"".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(40_000)}

    build(
        Pretrained("owner/tiny", "bert", {**TINY, "vocab_size": 50_000}),
        [" ".join(sorted(words))],
        LABELS,
        tmp_path,
    )

    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 30_522
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 50_000


def test_words_are_split_into_pieces_like_bert(tmp_path: Path) -> None:
    build(shrunken("bert"), ["walk walks walking talk talks talking"], LABELS, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    assert tokenizer.tokenize("Walking") == tokenizer.tokenize("wälking") == ["walking"]
    pieces = tokenizer.tokenize("walkings, talkalk")
    assert pieces[0].startswith("walk") and pieces[1].startswith("##")
    assert UNK in pieces  # the comma
    assert "".join(piece.removeprefix("##") for piece in pieces if piece != UNK) == (
        "walkingstalkalk"
    )


def test_second_model_replaces_the_first(tmp_path: Path) -> None:
    build(shrunken("bert"), ["so happy"], LABELS, tmp_path)
    build(shrunken("electra"), ["so sad"], ("no", "yes"), tmp_path)

    tokenizer, network = load(tmp_path)

    assert network.config.model_type == "electra"
    assert network.config.id2label == {0: "no", 1: "yes"}
    assert tokenizer.tokenize("sad") == ["sad"]


def test_no_code_and_no_pickle_is_written(built: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(built["bert"], tmp_path / "copy")
    settings = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]

    assert all("auto_map" not in setting for setting in settings)
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load(folder)
