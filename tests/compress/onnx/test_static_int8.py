from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress.config import CompressConfig
from compress.onnx.classifier import OnnxClassifier
from compress.onnx.conversion import export
from compress.onnx.static_int8 import drawn, static_int8
from featherweight.data.dataset import DataConfig, Dataset, Split, load_dataset
from featherweight.errors import UsageError
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

CONFIG = CompressConfig(method="static-int8", device="cpu")
# Weights 25 times wider than usual, or all texts would get nearly equal logits.
_TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": 600, "initializer_range": 0.5,
}  # fmt: skip
_SPECIAL = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": _TINY,
    "distilbert": {
        "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "vocab_size": 600,
        "initializer_range": 0.5,
    },
    "roberta": {**_TINY, "max_position_embeddings": 130, "type_vocab_size": 1},
    "modernbert": {**_TINY, **_SPECIAL},
}  # fmt: skip


@pytest.fixture(scope="module")
def moods(tiny_data: Path) -> Dataset:
    return load_dataset(DataConfig(data=str(tiny_data)))


@pytest.fixture(scope="module")
def folders(moods: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The folder of a tiny transformer of each family."""
    parent = tmp_path_factory.mktemp("transformers")
    for family, sizes in FAMILIES.items():
        model = Pretrained(f"acme/tiny-{family}", family, sizes)
        build(model, moods.train.texts, moods.labels, parent / family)
    return {family: parent / family for family in FAMILIES}


@pytest.fixture(scope="module")
def bert(folders: Mapping[str, Path]) -> TransformerClassifier:
    return TransformerClassifier.load(folders["bert"], "cpu")


@pytest.fixture(scope="module")
def static(
    bert: TransformerClassifier, moods: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OnnxClassifier, onnx.GraphProto]:
    """A tiny BERT in static int8, and its graph."""
    workspace = tmp_path_factory.mktemp("static")
    classifier = static_int8(bert, CONFIG, moods, workspace)
    files = {path.name for path in (workspace / "onnx").iterdir()}
    assert files >= {"model.onnx", "onnx.json", "labels.json"}
    assert "prepared.onnx" not in files
    return classifier, onnx.load(workspace / "onnx" / "model.onnx").graph


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_smaller_and_mostly_agrees(
    folders: Mapping[str, Path], moods: Dataset, tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    path = tmp_path / "onnx" / "model.onnx"
    export(origin, None, "onnx", tmp_path)
    size = path.stat().st_size
    small = static_int8(origin, CONFIG, moods, tmp_path)
    assert path.stat().st_size < 0.7 * size
    assert (small.dtype, small.backend) == ("int8", "onnxruntime")
    assert small.name == f"{origin.name} (static-int8)"
    assert small.labels == origin.labels
    assert small.num_parameters() == origin.num_parameters()
    texts = moods.validation.texts
    before, after = origin.predict(texts), small.predict(texts)
    assert sum(one == other for one, other in zip(before, after, strict=True)) >= 0.7 * len(texts)


def test_layers_and_embeddings_are_integers_and_the_head_is_not(
    static: tuple[OnnxClassifier, onnx.GraphProto],
) -> None:
    _, graph = static
    kinds = {it.name: it.data_type for it in graph.initializer}
    sizes = {it.name: list(it.dims) for it in graph.initializer}
    assert kinds["model.classifier.weight"] == onnx.TensorProto.FLOAT
    assert kinds["model.bert.pooler.dense.weight_quantized"] == onnx.TensorProto.INT8
    words = "model.bert.embeddings.word_embeddings.weight_quantized"
    assert kinds[words] == onnx.TensorProto.UINT8
    assert sizes["model.bert.pooler.dense.weight_scale"] == [32]  # one for each output
    integers = [it for it, kind in kinds.items() if kind == onnx.TensorProto.INT8]
    matrices = [it for it in integers if len(sizes[it]) == 2]
    assert len(matrices) == 2 * 6 + 1  # of two blocks, and the pooler


def test_scales_are_known_beforehand_so_a_text_has_the_same_logits_in_every_batch(
    static: tuple[OnnxClassifier, onnx.GraphProto], moods: Dataset
) -> None:
    classifier, graph = static
    assert not [it for it in graph.node if it.op_type.startswith("Dynamic")]
    texts = [*moods.validation.texts, "happy " * 60]
    together = classifier.forward(classifier.encode(texts))
    for text, logits in zip(texts, together, strict=True):
        assert classifier.forward(classifier.encode([text]))[0] == pytest.approx(logits, abs=1e-4)


def test_ranges_come_from_the_calibration_texts(
    bert: TransformerClassifier, moods: Dataset, tmp_path: Path
) -> None:
    logits = []
    for count in (1, 1, 36):
        config = CompressConfig(method="static-int8", calibration_texts=count)
        logits.append(static_int8(bert, config, moods, tmp_path).logits(moods.validation.texts))
    assert np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


def test_nothing_is_printed_or_warned_of(
    bert: TransformerClassifier,
    moods: Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    static_int8(bert, CONFIG, moods, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [str(it.message) for it in recwarn] == []
    assert caplog.messages == []


def split(*counts: int) -> Split:
    """A training split with so many texts of each class, such as "2-0": class 2, first text."""
    rows = [(f"{label}-{i}", label) for label, n in enumerate(counts) for i in range(n)]
    return Split("train", tuple(it for it, _ in rows), np.array([it for _, it in rows], np.int64))


def test_texts_are_drawn_evenly_over_the_classes_by_seed() -> None:
    train = split(50, 20, 2)
    texts = drawn(train, 14, 0)
    assert len(set(texts)) == 14
    assert Counter(it[0] for it in texts) == {"0": 6, "1": 6, "2": 2}
    assert drawn(train, 14, 0) == texts
    assert set(drawn(train, 14, 1)) != set(texts)


def test_of_fewer_texts_all_are_taken() -> None:
    train = split(3, 2)
    assert sorted(drawn(train, 256, 0)) == sorted(train.texts)


def test_without_training_texts_the_flag_is_named(
    bert: TransformerClassifier, moods: Dataset, tmp_path: Path
) -> None:
    empty = Dataset("moods", moods.labels, split(), moods.validation)
    with pytest.raises(UsageError, match=r"^--calibration_texts: .*no training texts"):
        static_int8(bert, CONFIG, empty, tmp_path)
    assert list(tmp_path.iterdir()) == []
