import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.onnx.classifier import OnnxClassifier, graph_inputs
from compress.onnx.conversion import export
from featherweight import load
from featherweight.errors import WeightsError
from featherweight.run import Run
from featherweight.timing.latency import Contender
from lstm.classifier import TextClassifier
from lstm.tokenizer import PAD_ID

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a variant's run has it, for reading only."""
    workspace = tmp_path_factory.mktemp("exported")
    export(load(tiny_run, "cpu"), None, "onnx", workspace)
    return workspace


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(exported, tmp_path / "copied")
    return tmp_path / "copied" / "onnx"


def test_attributes(exported: Path, tiny_run: Path) -> None:
    classifier, origin = load(exported), load(tiny_run, "cpu")
    assert isinstance(classifier, OnnxClassifier)
    assert (classifier.name, classifier.kind, classifier.dtype) == ("tiny (onnx)", "lstm", "fp32")
    assert (classifier.backend, classifier.device) == ("onnxruntime", "cpu")
    assert classifier.labels == origin.labels
    assert classifier.num_parameters() == origin.num_parameters()
    files = (exported / "onnx").iterdir()
    assert classifier.size_bytes() == sum(path.stat().st_size for path in files)


def test_batches_are_those_of_the_origin(exported: Path, tiny_run: Path) -> None:
    classifier, origin = load(exported), load(tiny_run, "cpu")
    assert isinstance(origin, TextClassifier)
    batch, expected = classifier.encode(TEXTS), origin.encode(TEXTS)
    assert np.array_equal(batch["input_ids"], expected.input_ids.numpy())
    assert np.array_equal(batch["lengths"], expected.lengths.numpy())
    assert classifier.num_tokens(batch) == origin.num_tokens(expected)
    logits = classifier.forward(batch)
    assert (logits.shape, logits.dtype) == ((len(TEXTS), 3), np.float32)


def test_texts_that_are_cut_are_counted(exported: Path) -> None:
    classifier = load(exported)
    batch = classifier.encode(["happy " * 128, "happy " * 129])
    assert classifier.num_tokens(batch) == 2 * 128
    assert classifier.truncated_texts == 1


@pytest.mark.parametrize("length", [9, 100])
def test_padding_does_not_change_logits(exported: Path, length: int) -> None:
    classifier = load(exported)
    batch = classifier.encode(TEXTS)
    wide = np.full((len(TEXTS), length), PAD_ID)
    for row, (ids, n) in enumerate(zip(batch["input_ids"], batch["lengths"], strict=True)):
        wide[row, :n] = ids[:n]
    logits = classifier.forward({**batch, "input_ids": wide})
    assert logits == pytest.approx(classifier.forward(batch), abs=1e-6)


def test_a_loaded_copy_gives_the_same_logits(exported: Path, tmp_path: Path) -> None:
    classifier = OnnxClassifier.load(exported / "onnx")
    (tmp_path / "variant").mkdir()
    classifier.save_in(Run(tmp_path / "variant"))
    loaded = load(tmp_path / "variant")
    assert np.array_equal(loaded.logits(TEXTS), classifier.logits(TEXTS))
    assert loaded.size_bytes() == classifier.size_bytes()


def test_it_is_never_timed_on_a_gpu(exported: Path, tiny_run: Path) -> None:
    contender = Contender("exported", weights=exported)
    assert contender.runs_on("cpu")
    assert not contender.runs_on("cuda")
    assert Contender("origin", weights=str(tiny_run)).runs_on("cuda")
    graphed = Contender("exported", weights=str(exported), cuda_graphs=True)
    assert not graphed.runs_on("cuda")


def changed(folder: Path, name: str, **facts: object) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps({**content, **facts}))


def truncate(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def alter(folder: Path) -> None:
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")
    changed(folder, "onnx.json", sha256=hashlib.sha256(b"no model").hexdigest())


@pytest.mark.parametrize(
    ("breaking", "says"),
    [
        (truncate, "model.onnx was altered or truncated"),
        (alter, "model.onnx was altered or truncated"),
        (forge, "model.onnx is not a model"),
        (lambda folder: (folder / "model.onnx").unlink(), "no model.onnx"),
        (lambda folder: (folder / "onnx.json").write_text("{"), "onnx.json is not JSON"),
        (lambda folder: (folder / "onnx.json").write_text("[]"), "does not fit this version"),
        (lambda folder: (folder / "onnx.json").write_text("{}"), "'sha256'"),
        (lambda folder: changed(folder, "onnx.json", kind="tree"), "'tree'"),
        (lambda folder: changed(folder, "onnx.json", num_parameters="many"), "many"),
        (lambda folder: (folder / "labels.json").unlink(), "no labels.json"),
        (lambda folder: (folder / "labels.json").write_text('["joy", "anger"]'), "2 labels"),
        (lambda folder: (folder / "labels.json").write_text("3"), "does not fit this version"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "not a tokenizer"),
    ],
)
def test_damaged_files_are_refused_in_one_line(
    copied: Path, breaking: Callable[[Path], None], says: str
) -> None:
    breaking(copied)
    with pytest.raises(WeightsError) as caught:
        load(copied.parent)
    assert says in str(caught.value)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_with_a_foreign_onnx_folder_is_not_an_exported_run(
    tiny_run: Path, tmp_path: Path
) -> None:
    # Models of the Hub have such folders.
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "onnx").mkdir()
    (tmp_path / "run" / "onnx" / "model.onnx").write_bytes(b"another graph")
    assert load(tmp_path / "run", "cpu").backend == "torch"
    assert Contender("run", weights=tmp_path / "run").runs_on("cuda")
    with pytest.raises(WeightsError, match=r"no onnx\.json"):
        OnnxClassifier.load(tmp_path / "run" / "onnx")


def test_ids_are_padded_to_the_longest() -> None:
    inputs = graph_inputs([[7], [4, 5, 6], [8, 9]])
    assert inputs["input_ids"].tolist() == [[7, 0, 0], [4, 5, 6], [8, 9, 0]]
    assert inputs["lengths"].tolist() == [1, 3, 2]
    assert (inputs["input_ids"].dtype, inputs["lengths"].dtype) == (np.int64, np.int32)


@pytest.mark.parametrize(("variable", "threads"), [(None, 0), ("3", 3), ("4,2", 0)])
def test_number_of_threads(
    exported: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
) -> None:
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    classifier = load(exported)
    assert isinstance(classifier, OnnxClassifier)
    assert classifier._session.get_session_options().intra_op_num_threads == threads


def test_an_lstm_needs_no_torch(exported: Path) -> None:
    code = (
        f"import sys; from featherweight import load; load({str(exported)!r}).predict(['so sad'])\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
