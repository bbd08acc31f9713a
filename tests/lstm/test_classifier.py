import builtins
import json
import lzma
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors.torch
import torch
import torch._dynamo  # imported before pickle is patched, since it subclasses unpicklers

from featherweight import load
from featherweight.errors import UsageError, WeightsError
from lstm import classifier as module_under_test
from lstm.classifier import TOKENIZER, TextClassifier, _packed, model_config
from lstm.config import ModelConfig, TokenizerConfig, TrainConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import UNK_ID, train_tokenizer

LABELS = ("joy", "très sad", "anger; or worse")
TEXTS = [
    "i am happy 👍🏽",
    "I'm SOOOO sad @ann...",
    "",
    "zzz",
    "why, why, why? https://t.co/x",
    "i",
]


@pytest.fixture(autouse=True)
def nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("something was unpickled")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)


def make_classifier(**changes: Any) -> TextClassifier:
    config = ModelConfig(embedding_dim=8, hidden_dim=8, **changes)
    vocabulary = TokenizerConfig(min_frequency=1, max_length=20)
    tokenizer = train_tokenizer(["i am happy", "i am sad.", "why, oh why?"], vocabulary)
    module = LSTMClassifier(tokenizer.get_vocab_size(), len(LABELS), config)
    with torch.no_grad():
        module.embedding.weight[1:].normal_()
    return TextClassifier("tiny (é)", LABELS, tokenizer, module, config, "cpu")


def header_length(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def header(content: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(content[8 : 8 + header_length(content)])
    return parsed


@pytest.fixture
def portable(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    make_classifier().save(path)
    return path


def assert_refused(path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load(path, "cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "attention", "num_layers": 3},
        {"pooling": "last", "bidirectional": False},
        {"pooling": "mean"},
    ],
)
def test_moved_portable_file_gives_equal_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    classifier = make_classifier(**changes)
    classifier.save(tmp_path / "model.safetensors")
    elsewhere = tmp_path / "a folder" / "renamed.safetensors"
    elsewhere.parent.mkdir()
    (tmp_path / "model.safetensors").rename(elsewhere)
    loaded = load(str(elsewhere), "cpu")
    assert isinstance(loaded, TextClassifier)
    assert (loaded.name, loaded.labels, loaded.device) == (classifier.name, LABELS, "cpu")
    assert loaded.config == classifier.config
    assert np.array_equal(loaded.logits(TEXTS), classifier.logits(TEXTS))
    assert loaded.predict(TEXTS) == classifier.predict(TEXTS)


def test_run_and_copy_of_its_model_file_give_equal_logits(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.safetensors"
    shutil.copy(tiny_run / "model.safetensors", copy)
    assert np.array_equal(load(copy, "cpu").logits(TEXTS), load(tiny_run, "cpu").logits(TEXTS))


def test_loaded_classifier_saves_the_same_file(portable: Path) -> None:
    loaded = load(portable, "cpu")
    assert isinstance(loaded, TextClassifier)
    # Several times, because the library writes metadata in random order.
    assert {loaded.serialize() for _ in range(20)} == {portable.read_bytes()}


def test_size_is_that_of_the_portable_file(portable: Path) -> None:
    assert load(portable, "cpu").size_bytes() == portable.stat().st_size


def test_parameters_are_those_of_the_network() -> None:
    classifier = make_classifier()
    tensors = safetensors.torch.load(classifier.serialize())
    del tensors[TOKENIZER]
    assert classifier.num_parameters() == sum(tensor.numel() for tensor in tensors.values())


def test_saving_leaves_no_other_file(portable: Path) -> None:
    make_classifier().save(portable)
    assert list(portable.parent.iterdir()) == [portable]


def test_loaded_network_is_in_evaluation_mode(portable: Path) -> None:
    loaded = load(portable, "cpu")
    assert isinstance(loaded, TextClassifier)
    assert not any(module.training for module in loaded.module.modules())
    assert np.array_equal(loaded.logits(TEXTS), loaded.logits(TEXTS))


def test_logits_keep_the_order_of_the_texts() -> None:
    classifier = make_classifier()
    together = classifier.logits(TEXTS)
    assert together.shape == (len(TEXTS), len(LABELS))
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(classifier.logits([text])[0], together[row], atol=1e-6)
    np.testing.assert_allclose(classifier.logits(TEXTS, batch_size=2), together, atol=1e-6)


def test_probabilities_are_the_softmax_and_predictions_their_largest() -> None:
    classifier = make_classifier()
    logits = classifier.logits(TEXTS).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS), expected, atol=1e-9)
    assert classifier.predict(TEXTS) == [LABELS[index] for index in logits.argmax(axis=1)]


def test_empty_text_is_encoded_as_one_unknown_token() -> None:
    batch = make_classifier().encode(["", "i am"])
    assert batch.input_ids[0].tolist() == [UNK_ID, 0]
    assert batch.lengths.tolist() == [1, 2]


def test_texts_cut_at_the_maximum_length_are_counted() -> None:
    classifier = make_classifier()
    classifier.logits(["i " * 21, "i " * 20, "i " * 100_000])
    assert classifier.truncated_texts == 2
    classifier.logits(["i " * 21])
    assert classifier.truncated_texts == 3


def test_model_config_is_only_the_architecture() -> None:
    config = model_config(TrainConfig(hidden_dim=5, epochs=9))
    assert type(config) is ModelConfig
    assert config == ModelConfig(hidden_dim=5)


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(lambda content: 0, id="nothing"),
        pytest.param(lambda content: 1, id="one byte"),
        pytest.param(lambda content: 7, id="half a length"),
        pytest.param(lambda content: 8, id="only a length"),
        pytest.param(lambda content: 9, id="one byte of header"),
        pytest.param(lambda content: 8 + header_length(content) // 2, id="half a header"),
        pytest.param(lambda content: 7 + header_length(content), id="header less a byte"),
        pytest.param(lambda content: 8 + header_length(content), id="no tensor"),
        pytest.param(lambda content: 9 + header_length(content), id="one byte of tensors"),
        pytest.param(lambda content: len(content) - 400, id="a tensor less"),
        pytest.param(lambda content: len(content) - 1, id="one byte less"),
    ],
)
def test_truncated_file_is_refused(portable: Path, length: Callable[[bytes], int]) -> None:
    content = portable.read_bytes()
    portable.write_bytes(content[: length(content)])
    assert_refused(portable)


def test_file_with_trailing_bytes_is_refused(portable: Path) -> None:
    portable.write_bytes(portable.read_bytes() + b"\0")
    assert_refused(portable)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_byte_flipped_anywhere_is_refused(portable: Path, mask: int) -> None:
    content = portable.read_bytes()
    # Every byte of the length, and positions across header and tensors.
    for place in [*range(8), *range(8, len(content), 131), len(content) - 1]:
        altered = bytearray(content)
        altered[place] ^= mask
        portable.write_bytes(altered)
        assert_refused(portable)


def saved_again(path: Path, **changes: str) -> None:
    """Writes the same tensors with other metadata but the old hash."""
    content = path.read_bytes()
    metadata = header(content)["__metadata__"]
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(content), metadata | changes))


def signed_again(path: Path, tokenizer: bytes | None = None, **changes: str | None) -> None:
    """Writes the same tensors with other metadata or tokenizer and a new hash."""
    content = path.read_bytes()
    tensors = safetensors.torch.load(content)
    if tokenizer is not None:
        tensors[TOKENIZER] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    metadata = header(content)["__metadata__"]
    del metadata["sha256"]
    metadata = {name: value for name, value in (metadata | changes).items() if value is not None}
    metadata["sha256"] = module_under_test._sha256(tensors, metadata)
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def test_file_saved_again_with_its_own_metadata_is_accepted(portable: Path) -> None:
    expected = load(portable, "cpu").logits(TEXTS)
    saved_again(portable)
    assert np.array_equal(load(portable, "cpu").logits(TEXTS), expected)
    signed_again(portable)
    assert np.array_equal(load(portable, "cpu").logits(TEXTS), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", '["anger; or worse", "joy", "très sad"]'),
        ("labels", '["joy", "très sad"]'),
        ("name", "another"),
        ("config", "{}"),
        ("storage", "{}"),
        ("sha256", ""),
        ("sha256", "0" * 64),
        ("added", "1"),
    ],
)
def test_altered_metadata_is_refused(portable: Path, name: str, value: str) -> None:
    saved_again(portable, **{name: value})
    assert_refused(portable)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", '["joy", "sad"]'),
        ("labels", "5"),
        ("labels", "not json"),
        ("labels", None),
        ("config", '{"hidden_dim": 9}'),
        ("config", '{"of_a_newer_version": 1}'),
        ("config", '{"hidden_dim": "eight"}'),
        ("config", "[]"),
        ("config", None),
        ("storage", '{"embedding.weight": "fp64"}'),
        ("storage", '"fp16"'),
        ("storage", None),
        ("name", None),
        ("format", None),
        ("format", "featherweight-lstm/3"),
    ],
)
def test_metadata_that_does_not_fit_the_tensors_is_refused(
    portable: Path, name: str, value: str | None
) -> None:
    signed_again(portable, **{name: value})
    assert_refused(portable)


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"not packed", id="not packed"),
        pytest.param(lzma.compress(b"{}", lzma.FORMAT_ALONE), id="no tokenizer"),
        pytest.param(lzma.compress(b"\xff", lzma.FORMAT_ALONE), id="no text"),
        pytest.param(
            _packed(train_tokenizer(["other words"], TokenizerConfig(min_frequency=1)))
            .numpy()
            .tobytes(),
            id="of another vocabulary",
        ),
    ],
)
def test_tokenizer_that_does_not_fit_the_tensors_is_refused(portable: Path, packed: bytes) -> None:
    signed_again(portable, tokenizer=packed)
    assert_refused(portable)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "featherweight-lstm/1"}])
def test_foreign_safetensors_file_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path, metadata)
    assert_refused(path)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.eval, (f"open({str(self.mark)!r}, 'w').close()",)


def as_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(mark)))


def as_torch_zip(path: Path, mark: Path) -> None:
    torch.save({"weight": torch.zeros(2), "payload": Payload(mark)}, path)


def as_zip(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", pickle.dumps(Payload(mark)))


@pytest.mark.parametrize("disguised", [as_pickle, as_torch_zip, as_zip])
@pytest.mark.parametrize("place", ["file", "run"])
def test_pickle_under_the_name_of_weights_is_refused_and_never_run(
    tmp_path: Path, disguised: Callable[[Path, Path], None], place: str
) -> None:
    path, mark = tmp_path / "model.safetensors", tmp_path / "mark"
    disguised(path, mark)
    with pytest.raises(WeightsError) as caught:
        load(path if place == "file" else tmp_path, "cpu")
    assert len(str(caught.value).splitlines()) == 1
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"text,label\ni am happy,joy\n", id="csv"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), id="png"),
        pytest.param(bytes(100), id="zeros"),
        pytest.param(b"\xff" * 100, id="ones"),
        pytest.param((2).to_bytes(8, "little") + b"{}", id="no tensors"),
        pytest.param((2).to_bytes(8, "little") + b"[]", id="a list for a header"),
        pytest.param((2).to_bytes(8, "little") + b"\xff\xfe", id="no text for a header"),
        pytest.param((4).to_bytes(8, "little") + b"null", id="null for a header"),
        pytest.param(
            (200_000).to_bytes(8, "little") + b"[" * 200_000, id="brackets without an end"
        ),
    ],
)
def test_other_file_type_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_refused(path)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match="no weights"):
        load(tmp_path, "cpu")


def test_unavailable_device_is_refused(portable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="cuda"):
        load(portable, "cuda")
