import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from featherweight import load
from featherweight.errors import FeatherweightError, UsageError, WeightsError
from featherweight.run import CHECKPOINT, CHECKPOINTS, CONFIG, MODEL, TRANSFORMER
from featherweight.weights import read_metadata
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TEXTS = ["i am so happy", "", "zzzz", "😂", "x" * 100_000]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def refusal(weights: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(weights)
    message = str(error.value)
    assert "\n" not in message
    assert weights.name in message
    return message


def with_header(path: Path, header: bytes, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
    return path


def test_run_and_portable_file_give_equal_logits(tiny_run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "portable.safetensors"
    shutil.copy(tiny_run / MODEL, elsewhere)
    from_run, from_file = load(tiny_run), load(str(elsewhere), device="cpu")
    np.testing.assert_array_equal(from_run.logits(TEXTS), from_file.logits(TEXTS))
    assert from_file.labels == from_run.labels == ("anger", "joy", "sadness")
    assert from_file.name == "tiny"


def test_a_loaded_classifier_predicts(tiny_run: Path) -> None:
    classifier = load(tiny_run)
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert set(classifier.predict(TEXTS)) <= set(classifier.labels)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    assert "run directory" in refusal(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=MODEL):
        load(tmp_path)


def test_interrupted_run_is_not_loaded(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "cut-off"
    shutil.copytree(tiny_run, run)
    (run / CHECKPOINT).write_bytes(b"state")
    assert "--resume" in refusal(run)


@pytest.mark.parametrize("share", [0, 0.0001, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_weights_are_refused(tiny_run: Path, tmp_path: Path, share: float) -> None:
    data = (tiny_run / MODEL).read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(share * len(data))])
    refusal(path)


@pytest.mark.parametrize("position", [0.0, 0.05, 0.2, 0.5, 0.8, 0.9999])
def test_altered_weights_are_refused(tiny_run: Path, tmp_path: Path, position: float) -> None:
    data = bytearray((tiny_run / MODEL).read_bytes())
    data[int(position * len(data))] ^= 1
    path = tmp_path / "altered.safetensors"
    path.write_bytes(data)
    refusal(path)


def test_weights_with_other_labels_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    data = (tiny_run / MODEL).read_bytes()
    assert data.count(b"sadness") == 1
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(data.replace(b"sadness", b"madness"))
    assert "altered" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"text,label\nhi,joy\n", id="csv"),
        pytest.param(b"\0" * 64, id="zeros"),
        pytest.param(b"\xff" * 64, id="ones"),
        pytest.param(b"PK\x03\x04" + bytes(60), id="zip"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"7", b'"text"', b"null", b"{", b"\xff\xfe{}", b'{"__metadata__": 7}',
        b'{"__metadata__": "text"}', b'{"__metadata__": [1]}', b'{"__metadata__": null}',
        pytest.param(b"[" * 200_000, id="nested-deep"),
    ],
)  # fmt: skip
def test_a_foreign_header_is_refused(tmp_path: Path, header: bytes) -> None:
    refusal(with_header(tmp_path / "foreign.safetensors", header))


@pytest.mark.parametrize("length", [10, 99_999_999, 2**40, 2**63])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    refusal(with_header(tmp_path / "long.safetensors", b"{}", length))


def test_safetensors_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, {"format": "pt"})
    assert "featherweight" in refusal(path)


def test_other_tensors_with_our_metadata_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    metadata = read_metadata(tiny_run / MODEL)
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, metadata)
    refusal(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.bin"])
@pytest.mark.parametrize("with_torch", [False, True])
def test_nothing_is_unpickled(tmp_path: Path, name: str, with_torch: bool) -> None:
    bomb = Bomb(tmp_path / "exploded")
    path = tmp_path / name
    if with_torch:
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb))
    refusal(path)
    assert not bomb.path.exists()


def test_unavailable_cuda_is_a_usage_error(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device"):
        load(tiny_run, device="cuda")


def test_every_refusal_is_a_featherweight_error_for_wrong_use() -> None:
    assert issubclass(WeightsError, FeatherweightError)
    assert WeightsError("").exit_code == UsageError("").exit_code == 2


def test_metadata_is_read_without_the_tensors(tiny_run: Path, tmp_path: Path) -> None:
    data = (tiny_run / MODEL).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    path = tmp_path / "header-only.safetensors"
    path.write_bytes(data[:header])
    assert json.loads(read_metadata(path)["labels"]) == ["anger", "joy", "sadness"]


# Transformers


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written by `save_pretrained`; do not change it."""
    folder = tmp_path_factory.mktemp("models") / "mini"
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 8, "vocab_size": 60}  # fmt: skip
    build(Pretrained("acme/mini", "bert", sizes), ["so happy", "so sad"], ["joy", "grief"], folder)
    return folder


def finished_run(transformer: Path, path: Path) -> Path:
    path.mkdir()
    (path / CONFIG).write_text('{"model": ["bert-base"]}')
    shutil.copytree(transformer, path / TRANSFORMER)
    return path


def test_folder_of_the_transformers_library_is_loaded(transformer: Path) -> None:
    classifier = load(str(transformer), device="cpu")
    assert (classifier.name, classifier.labels) == ("mini", ("joy", "grief"))
    assert classifier.predict_proba(TEXTS[:-1]).shape == (4, 2)
    assert classifier.truncated_texts == 0


def test_transformer_has_the_name_of_its_run(transformer: Path, tmp_path: Path) -> None:
    run = finished_run(transformer, tmp_path / "mine")
    classifier = load(run, device="cpu")
    assert classifier.name == "mine"
    expected = load(transformer, device="cpu").logits(TEXTS[:-1])
    np.testing.assert_array_equal(classifier.logits(TEXTS[:-1]), expected)


def test_interrupted_fine_tuning_is_not_loaded(transformer: Path, tmp_path: Path) -> None:
    run = finished_run(transformer, tmp_path / "cut-off")
    (run / CHECKPOINTS).mkdir()
    assert "--resume" in refusal(run)


def test_a_run_without_its_transformer_has_no_weights(tmp_path: Path) -> None:
    run = tmp_path / "emptied"
    run.mkdir()
    (run / CONFIG).write_text('{"model": ["bert-base"]}')
    assert "no weights" in refusal(tmp_path / "emptied" / MODEL)
    with pytest.raises(WeightsError, match="no weights"):
        load(run)


def test_an_empty_transformer_folder_is_refused(transformer: Path, tmp_path: Path) -> None:
    run = finished_run(transformer, tmp_path / "mine")
    shutil.rmtree(run / TRANSFORMER)
    (run / TRANSFORMER).mkdir()
    with pytest.raises(WeightsError, match="is it a model") as error:
        load(run)
    assert str(run) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["{", "", "[", "\x00"])
def test_a_folder_whose_config_is_damaged_is_refused(
    transformer: Path, tmp_path: Path, config: str
) -> None:
    folder = shutil.copytree(transformer, tmp_path / "mini")
    (folder / CONFIG).write_text(config)
    assert CONFIG in refusal(folder)


def test_weights_file_of_the_transformers_library_is_refused(transformer: Path) -> None:
    assert "featherweight" in refusal(transformer / MODEL)


def in_a_process(code: str, *paths: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_transformers_only_an_lstm_is_loaded(
    tiny_run: Path, transformer: Path, tmp_path: Path
) -> None:
    code = """
import sys
sys.modules["transformers"] = None
from featherweight import load
from featherweight.errors import MissingExtraError
lstm, *transformers = sys.argv[1:]
load(lstm).predict(["so happy"])
print(sorted({"transformer_eval", "accelerate"} & set(sys.modules)))
for path in transformers:
    try:
        load(path)
    except MissingExtraError as error:
        print(error)
"""
    run = finished_run(transformer, tmp_path / "mine")
    loaded, *errors = in_a_process(code, tiny_run, transformer, run).splitlines()
    assert loaded == "[]"
    assert len(errors) == 2
    for error in errors:
        assert "transformers is not installed" in error
        assert "featherweight[transformers]" in error
