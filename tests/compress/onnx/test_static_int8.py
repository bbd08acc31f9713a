from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.onnx.classifier import OnnxClassifier
from compress.onnx.static_int8 import sample_texts
from featherweight.data.dataset import Dataset, Split
from featherweight.errors import UsageError
from tests.helpers.variants import made
from transformer_eval.classifier import TransformerClassifier


@pytest.fixture(scope="module")
def static(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OnnxClassifier, onnx.GraphProto]:
    """A tiny BERT in static int8, and its graph."""
    workspace = tmp_path_factory.mktemp("static")
    bert = TransformerClassifier.load(folders["bert"], "cpu")
    classifier = made(bert, dataset, workspace, "static-int8")
    files = {path.name for path in (workspace / "onnx").iterdir()}
    assert files >= {"model.onnx", "onnx.json", "labels.json"}
    assert "prepared.onnx" not in files
    return classifier, onnx.load(workspace / "onnx" / "model.onnx").graph


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "modernbert"])
def test_each_family_is_smaller_and_mostly_equal(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    small = made(origin, dataset, tmp_path, "static-int8")
    graph = onnx.load(tmp_path / "onnx" / "model.onnx").graph
    weights = sum(len(tensor.raw_data) for tensor in graph.initializer)
    assert weights < 0.4 * (origin.folder / "model.safetensors").stat().st_size
    assert (small.dtype, small.backend) == ("int8", "onnxruntime")
    assert small.name == f"{origin.name} (static-int8)"
    assert small.labels == origin.labels
    assert small.num_parameters() == origin.num_parameters()
    texts = dataset.validation.texts
    before, after = origin.predict(texts), small.predict(texts)
    assert sum(one == other for one, other in zip(before, after, strict=True)) >= 0.7 * len(texts)


def test_layers_and_embeddings_are_integers_and_the_head_is_not(
    static: tuple[OnnxClassifier, onnx.GraphProto],
) -> None:
    _, graph = static
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert kinds["model.classifier.weight"] == onnx.TensorProto.FLOAT
    assert kinds["model.bert.pooler.dense.weight_quantized"] == onnx.TensorProto.INT8
    words = "model.bert.embeddings.word_embeddings.weight_quantized"
    assert kinds[words] == onnx.TensorProto.UINT8
    assert sizes["model.bert.pooler.dense.weight_scale"] == [32]  # one for each output
    integers = [name for name, kind in kinds.items() if kind == onnx.TensorProto.INT8]
    matrices = [name for name in integers if len(sizes[name]) == 2]
    assert len(matrices) == 2 * 6 + 1  # of two blocks, and the pooler


def test_logits_do_not_depend_on_the_batch(
    static: tuple[OnnxClassifier, onnx.GraphProto], dataset: Dataset
) -> None:
    classifier, graph = static
    assert not [node for node in graph.node if node.op_type.startswith("Dynamic")]
    texts = [*dataset.validation.texts, "happy " * 60]
    together = classifier.forward(classifier.encode(texts))
    for text, logits in zip(texts, together, strict=True):
        assert classifier.forward(classifier.encode([text]))[0] == pytest.approx(logits, abs=1e-4)


def test_ranges_depend_on_the_calibration_texts_and_nothing_is_printed(
    bert: TransformerClassifier, static: tuple[OnnxClassifier, onnx.GraphProto], dataset: Dataset,
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    texts = dataset.validation.texts
    few, all_texts = (
        made(bert, dataset, tmp_path, "static-int8", calibration_texts=count).logits(texts)
        for count in (1, 36)
    )
    assert np.array_equal(all_texts, static[0].logits(texts))  # 256 of 36 texts
    assert not np.array_equal(all_texts, few)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    assert caplog.messages == []


def split(*counts: int) -> Split:
    """A training split with the given numbers of texts per class; "2-0" is the first of class 2."""
    rows = [(f"{label}-{i}", label) for label, n in enumerate(counts) for i in range(n)]
    return Split(
        "train", tuple(text for text, _ in rows), np.array([label for _, label in rows], np.int64)
    )


def test_texts_are_sampled_evenly_over_the_classes_by_seed() -> None:
    train = split(50, 20, 2)
    texts = sample_texts(train, 14, 0)
    assert len(set(texts)) == 14
    assert Counter(text[0] for text in texts) == {"0": 6, "1": 6, "2": 2}
    assert sample_texts(train, 14, 0) == texts
    assert set(sample_texts(train, 14, 1)) != set(texts)


def test_all_texts_of_a_small_split_are_taken() -> None:
    train = split(3, 2)
    assert sorted(sample_texts(train, 256, 0)) == sorted(train.texts)


def test_without_training_texts_the_flag_is_named(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    empty = Dataset("moods", dataset.labels, split(), dataset.validation)
    with pytest.raises(UsageError, match=r"^--calibration_texts: .*no training texts"):
        made(bert, empty, tmp_path, "static-int8")
    assert list(tmp_path.iterdir()) == []
