import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from featherweight.exploration.figures import learned_vectors
from featherweight.run import CONFIG, MODEL
from transformer_eval.classifier import NORMALIZER, TransformerClassifier
from transformer_eval.frozen_encoder import Encoder
from transformer_eval.model_files import Files, fetch
from transformer_eval.registry import Pretrained

TEXTS = [
    "glad to be home with the dog at last, the sun is out and dancing in the kitchen is good",
    "sad",
    "",
    "why is the bus ALWAYS late, i hate this",
    "i miss my dog 😂",
]


def encoder_of(folder: Path, pooling: str = "mean", max_tokens: int = 128) -> Encoder:
    return Encoder(fetch(str(folder)), pooling, max_tokens, "cpu")


def states(folder: Path, text: str) -> torch.Tensor:
    """Returns the hidden states (T, H) of a text, computed with the library alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]


def counted(encoder: Encoder) -> list[int]:
    """Returns a list that grows with each forward pass."""
    forwards: list[int] = []
    encoder.model.register_forward_hook(lambda *_: forwards.append(1))
    return forwards


@pytest.fixture
def copied(tmp_path: Path, tiny_bert: Path) -> Path:
    """A tiny BERT that the test may change."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values))


def test_embedding_is_the_mean_or_the_first_of_the_states(tiny_bert: Path) -> None:
    mean, cls = encoder_of(tiny_bert), encoder_of(tiny_bert, "cls")
    for text in TEXTS:
        expected = states(tiny_bert, text)
        np.testing.assert_allclose(mean.embed_all([text], 1)[0], expected.mean(0), atol=1e-5)
        np.testing.assert_allclose(cls.embed_all([text], 1)[0], expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        *((family, "mean") for family in ("bert", "distilbert", "roberta", "modernbert")),
        *((family, "mean") for family in ("deberta-v2", "electra", "albert")),
        ("bert", "cls"),
    ],
)
def test_padding_does_not_change_embeddings(
    tiny_transformers: Mapping[str, Path], family: str, pooling: str
) -> None:
    encoder = encoder_of(tiny_transformers[family], pooling)
    together = encoder.embed(encoder.encode(TEXTS)[0])
    alone = [encoder.embed(encoder.encode([text])[0])[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    # Otherwise the assertion above could not fail.
    assert np.abs(together[0] - together[1]).max() > 1e-2


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_embeddings_keep_the_order_of_the_texts(tiny_bert: Path, batch_size: int) -> None:
    encoder = encoder_of(tiny_bert)
    rows = encoder.embed_all([*TEXTS, TEXTS[0]], batch_size)
    assert (rows.shape, rows.dtype) == ((6, 32), np.float32)
    np.testing.assert_array_equal(rows[0], rows[5])
    for row, text in zip(rows, TEXTS, strict=False):
        np.testing.assert_allclose(row, encoder.embed_all([text], 1)[0], atol=1e-5)


def test_encoder_is_frozen(tiny_bert: Path) -> None:
    encoder = encoder_of(tiny_bert)
    np.testing.assert_array_equal(encoder.embed_all(TEXTS, 2), encoder.embed_all(TEXTS, 2))
    assert all(parameter.grad is None for parameter in encoder.model.parameters())


def test_texts_are_truncated_at_the_maximum_length(tiny_bert: Path) -> None:
    encoder = encoder_of(tiny_bert, max_tokens=5)
    assert encoder.encode(TEXTS)[0]["input_ids"].shape == (5, 5)
    short, full = encoder.embed_all(TEXTS[:1], 1), encoder_of(tiny_bert).embed_all(TEXTS[:1], 1)
    assert np.abs(short - full).max() > 1e-3


def test_maximum_length_is_limited_by_the_positions(
    tiny_transformers: Mapping[str, Path],
) -> None:
    encoder = encoder_of(tiny_transformers["roberta"], max_tokens=10_000)
    assert encoder.max_length == 128  # of 130 positions, two are unused
    assert encoder.embed_all(["i am sad " * 500], 1).shape == (1, 32)


def test_only_truncated_texts_are_counted(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, local_files_only=True)
    fits = len(tokenizer(TEXTS[3])["input_ids"])
    assert len(tokenizer(TEXTS[0])["input_ids"]) > fits
    encoder = encoder_of(tiny_bert, max_tokens=fits)
    assert encoder.encode(TEXTS)[1] == 1
    assert encoder.encode(TEXTS[1:])[1] == 0


def test_texts_are_normalized_as_the_registry_states(tiny_bert: Path) -> None:
    model = Pretrained("acme/tiny", "bert", normalizer="cardiff")
    encoder = Encoder(Files("tiny", tiny_bert, None, model), "mean", 128, "cpu")
    raw, normalized = encoder.embed_all(["@ann i am sad", "@user i am sad"], 2)
    np.testing.assert_allclose(raw, normalized, atol=1e-6)
    plain = encoder_of(tiny_bert).embed_all(["@ann i am sad", "@user i am sad"], 2)
    assert np.abs(plain[0] - plain[1]).max() > 1e-2
    np.testing.assert_allclose(plain[1], normalized, atol=1e-6)


def test_texts_are_normalized_as_the_config_states(copied: Path) -> None:
    change_json(copied / CONFIG, **{NORMALIZER: "cardiff"})
    raw, normalized = encoder_of(copied).embed_all(["@ann i am sad", "@user i am sad"], 2)
    np.testing.assert_allclose(raw, normalized, atol=1e-6)


@pytest.mark.parametrize("reload", [False, True])
def test_same_texts_are_encoded_once(tiny_bert: Path, tmp_path: Path, reload: bool) -> None:
    encoder = encoder_of(tiny_bert)
    forwards = counted(encoder)
    first = encoder.embed_cached(TEXTS, 2, tmp_path / "not" / "there")
    assert len(forwards) == 3
    if reload:
        encoder = encoder_of(tiny_bert)
        forwards = counted(encoder)
    del forwards[:]
    second = encoder.embed_cached(TEXTS, 4, tmp_path / "not" / "there")
    assert forwards == []
    np.testing.assert_array_equal(first, second)
    assert first.dtype == second.dtype


def test_cache_has_one_safetensors_file(tiny_bert: Path, tmp_path: Path) -> None:
    embeddings = encoder_of(tiny_bert).embed_cached(TEXTS, 2, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".safetensors"
    (cached,) = safetensors.numpy.load_file(path).values()
    np.testing.assert_array_equal(cached, embeddings)


@pytest.mark.parametrize(
    "texts",
    [TEXTS[:-1], TEXTS[::-1], [*TEXTS, ""], [text + " " for text in TEXTS]],
    ids=["fewer", "another order", "one more", "blanks"],
)
def test_other_texts_are_encoded(tiny_bert: Path, tmp_path: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_bert)
    encoder.embed_cached(TEXTS, 8, tmp_path)
    forwards = counted(encoder)
    rows = encoder.embed_cached(texts, 8, tmp_path)
    assert len(forwards) == 1
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_allclose(rows, encoder.embed_all(texts, 8), atol=1e-6)


def test_text_with_a_nul_differs_from_two_texts(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_bert)
    assert len(encoder.embed_cached(["so", "sad"], 2, tmp_path)) == 2
    assert len(encoder.embed_cached(["so\x00sad"], 2, tmp_path)) == 1


@pytest.mark.parametrize(("pooling", "max_tokens"), [("cls", 128), ("mean", 127)])
def test_other_pooling_or_length_is_encoded(
    tiny_bert: Path, tmp_path: Path, pooling: str, max_tokens: int
) -> None:
    encoder_of(tiny_bert).embed_cached(TEXTS, 8, tmp_path)
    other = encoder_of(tiny_bert, pooling, max_tokens)
    forwards = counted(other)
    other.embed_cached(TEXTS, 8, tmp_path)
    assert len(forwards) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_other_normalization_is_encoded(tiny_bert: Path, tmp_path: Path) -> None:
    texts = ["@ann i am sad"]
    plain = encoder_of(tiny_bert).embed_cached(texts, 8, tmp_path)
    model = Pretrained("acme/tiny", "bert", normalizer="cardiff")
    files = Files("tiny", tiny_bert, None, model)
    masked = Encoder(files, "mean", 128, "cpu").embed_cached(texts, 8, tmp_path)
    assert np.abs(plain - masked).max() > 1e-2


def test_length_beyond_the_limit_does_not_change_the_fingerprint(tiny_bert: Path) -> None:
    limit = encoder_of(tiny_bert, max_tokens=512).max_length
    assert (
        encoder_of(tiny_bert, max_tokens=limit).fingerprint
        == encoder_of(tiny_bert, max_tokens=9_999).fingerprint
    )


def test_other_weights_change_the_fingerprint(copied: Path) -> None:
    before = encoder_of(copied).fingerprint
    weights = load_file(copied / MODEL)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, copied / MODEL, {"format": "pt"})
    assert encoder_of(copied).fingerprint != before


def test_other_tokenizer_changes_the_fingerprint(copied: Path) -> None:
    before = encoder_of(copied).fingerprint
    tokenizer = json.loads((copied / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert encoder_of(copied).fingerprint != before


def test_other_files_do_not_change_the_fingerprint(copied: Path) -> None:
    before = encoder_of(copied).fingerprint
    # Files that other tools add to a model, even in the cache of the Hub.
    for name in ("README.md", "modules.json", "pytorch_model.bin", "training.log"):
        (copied / name).write_text("{}")
    (copied / "onnx").mkdir()
    assert encoder_of(copied).fingerprint == before


def test_location_does_not_change_the_fingerprint(tiny_bert: Path, copied: Path) -> None:
    assert encoder_of(copied).fingerprint == encoder_of(tiny_bert).fingerprint


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "text"])
def test_damaged_cache_is_replaced(
    caplog: pytest.LogCaptureFixture, tiny_bert: Path, tmp_path: Path, damage: str
) -> None:
    encoder = encoder_of(tiny_bert)
    expected = encoder.embed_cached(TEXTS, 8, tmp_path)
    (path,) = tmp_path.iterdir()
    foreign = safetensors.numpy.save({"other": expected})
    path.write_bytes(
        {
            "truncated": path.read_bytes()[:-5],
            "empty": b"",
            "foreign": foreign,
            "text": b"not a safetensors file",
        }[damage]
    )
    with caplog.at_level(logging.WARNING, "featherweight"):
        np.testing.assert_array_equal(encoder.embed_cached(TEXTS, 8, tmp_path), expected)
    assert f"{path} is damaged" in caplog.text
    forwards = counted(encoder)
    np.testing.assert_array_equal(encoder.embed_cached(TEXTS, 8, tmp_path), expected)
    assert forwards == []


def test_interrupted_encoding_leaves_no_cache(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = encoder_of(tiny_bert)
    forwards = counted(encoder)

    def interrupt(*_: object) -> None:
        if len(forwards) == 2:
            raise KeyboardInterrupt

    encoder.model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        encoder.embed_cached(TEXTS, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "modernbert", "deberta-v2"])
def test_fine_tuned_model_has_the_embeddings_of_its_encoder(
    tiny_transformers: Mapping[str, Path], family: str
) -> None:
    folder = tiny_transformers[family]
    classifier = TransformerClassifier.load(folder, "cpu")
    np.testing.assert_allclose(
        learned_vectors(classifier, TEXTS), encoder_of(folder).embed_all(TEXTS, 2), atol=1e-5
    )
