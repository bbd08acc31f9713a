"""Portable files that are truncated, altered, lie or are of another kind are refused."""

import builtins
import json
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer

from featherweight import load
from featherweight.errors import WeightsError
from lstm import classifier as module_under_test
from lstm.classifier import TOKENIZER, _packed
from lstm.config import TokenizerConfig
from lstm.encoder import LSTMClassifier
from lstm.tokenizer import train_tokenizer
from tests.helpers.tiny_lstm import (
    TEXTS,
    assert_refused,
    header,
    header_length,
    make_classifier,
)

pytestmark = pytest.mark.usefixtures("nothing_is_unpickled")


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


def with_regex(tokenizer: Tokenizer, regex: str) -> Tokenizer:
    content = json.loads(tokenizer.to_str())
    step = {"type": "Replace", "pattern": {"Regex": regex}, "content": ""}
    content["normalizer"]["normalizers"].append(step)
    return Tokenizer.from_str(json.dumps(content))


def signed_again(path: Path, tokenizer: bytes | None = None, **changes: str | None) -> None:
    """Writes the same tensors with other metadata or tokenizer and a new hash."""
    content = path.read_bytes()
    tensors = safetensors.torch.load(content)
    if tokenizer is not None:
        tensors[TOKENIZER] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    metadata = header(content)["__metadata__"]
    del metadata["sha256"]
    metadata = {name: value for name, value in (metadata | changes).items() if value is not None}
    metadata["sha256"] = module_under_test.content_sha256(tensors, metadata)
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
        ("labels", '["joy", "sad", "sad"]'),
        ("labels", '["joy", "sad", 3]'),
        ("labels", '"joy"'),
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


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4", "sparse"])
@pytest.mark.parametrize("field", ["embedding_dim", "hidden_dim", "num_layers"])
@pytest.mark.parametrize("number", [40, 10**5, 10**9, 10**30, -1, 0])
def test_a_number_in_the_config_that_the_tensors_do_not_have_is_refused_without_allocation(
    portable: Path, monkeypatch: pytest.MonkeyPatch, kind: str, field: str, number: int
) -> None:
    classifier = make_classifier()
    storage = {
        name: kind if tensor.dim() == 2 else "fp32"
        for name, tensor in classifier.module.state_dict().items()
    }
    classifier.with_network("tiny", classifier.module, storage).save(portable)
    config = json.loads(header(portable.read_bytes())["__metadata__"]["config"])
    signed_again(portable, config=json.dumps(config | {field: number}))
    devices = []

    class Watched(LSTMClassifier):
        def __init__(self, *dimensions: Any) -> None:
            super().__init__(*dimensions)
            devices.append(self.head.weight.device.type)

    monkeypatch.setattr(module_under_test, "LSTMClassifier", Watched)
    assert_refused(portable)
    assert "cpu" not in devices


@pytest.mark.parametrize(
    "lie",
    [
        {"dtype": "F16"}, {"dtype": "I64"}, {"dtype": "BOOL"}, {"dtype": "F4"}, {"dtype": "C64"},
        {"dtype": "F8_E8M0"}, {"dtype": "none"}, {"dtype": 3}, {"shape": [10**12]}, {"shape": [-1]},
        {"shape": [2**40, 2**40]}, {"shape": []}, {"shape": "all"}, {"data_offsets": [0, 10**15]},
        {"data_offsets": [8, 0]}, {"data_offsets": [-8, 0]}, {"data_offsets": [0]},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_does_not_describe_the_bytes_is_refused(
    portable: Path, lie: dict[str, Any]
) -> None:
    content = portable.read_bytes()
    described = header(content)
    for name in set(described) - {"__metadata__"}:
        text = json.dumps(described | {name: described[name] | lie}).encode()
        tensors = content[8 + header_length(content) :]
        portable.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
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
        pytest.param(
            module_under_test._packed(with_regex(make_classifier().tokenizer, "(x+x+)+y"))
            .numpy()
            .tobytes(),
            id="with another regular expression",
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
