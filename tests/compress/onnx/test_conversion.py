import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress import variant
from compress.onnx import conversion
from compress.onnx.conversion import dynamic, export
from compress.variant import slowdown
from featherweight import load
from featherweight.cli import main
from featherweight.comparison import compare
from featherweight.data.dataset import Dataset
from featherweight.errors import FeatherweightError, MissingExtraError
from featherweight.reports import reporting
from featherweight.run import MODEL, TRANSFORMER, Run
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier
from tests.helpers.variants import FAMILIES, compressed
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone tonight and the house is dark",
         "why, why, why???", "happy " * 60]  # fmt: skip
LATENCIES = {"1": {"before": 2.0, "after": 1.0}, "32": {"before": 2.0, "after": 3.0}}

each_family = pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])


def lstm(tiny_run: Path, **changes: Any) -> TextClassifier:
    """An LSTM with the tokenizer of the tiny run, and a network of its own."""
    origin = load(tiny_run, "cpu")
    assert isinstance(origin, TextClassifier)
    config = ModelConfig(embedding_dim=12, hidden_dim=10, **changes)
    module = LSTMClassifier(origin.tokenizer.get_vocab_size(), 3, config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)  # so that texts get logits that differ
    return TextClassifier("tiny", origin.labels, origin.tokenizer, module, config, "cpu")


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "pooling"),
    [(1, True, "last"), (3, True, "max"), (1, False, "mean"), (3, False, "attention"),
     (3, False, "last"), (2, True, "attention")],
)  # fmt: skip
def test_an_lstm_of_any_shape_gives_the_same_logits(
    tiny_run: Path, tmp_path: Path, num_layers: int, bidirectional: bool, pooling: Any
) -> None:
    origin = lstm(tiny_run, num_layers=num_layers, bidirectional=bidirectional, pooling=pooling)
    exported = export(origin, None, "onnx", tmp_path)
    expected = origin.logits(TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert exported.logits(TEXTS) == pytest.approx(expected, abs=1e-5)
    # Logits depend neither on the position in a batch nor on padding.
    for text, logits in zip(TEXTS, expected, strict=True):
        assert exported.forward(exported.encode([text]))[0] == pytest.approx(logits, abs=1e-5)


@each_family
def test_a_transformer_gives_the_same_logits_at_every_length(
    folders: Mapping[str, Path], tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    exported = export(origin, None, "onnx", tmp_path)
    texts = [*TEXTS, *("i am so glad today"[:length] for length in range(1, 18, 3))]
    expected = origin.logits(texts)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert exported.logits(texts) == pytest.approx(expected, abs=1e-4)
    for text, logits in zip(texts, expected, strict=True):
        assert exported.forward(exported.encode([text]))[0] == pytest.approx(logits, abs=1e-4)
    assert exported.labels == origin.labels
    assert exported.num_parameters() == origin.num_parameters()
    # Long texts are cut at the same length, and counted.
    length = origin.max_length
    for classifier in (origin, exported):
        classifier.truncated_texts = 0
        batch = classifier.encode([" ".join(["happy"] * n) for n in (length - 2, length - 1, 1)])
        assert classifier.num_tokens(batch) == length + length + 3
        assert classifier.truncated_texts == 1


def test_the_normalizer_is_exported(dataset: Dataset, tmp_path: Path) -> None:
    model = Pretrained("acme/tweets", "bert", FAMILIES["bert"], normalizer="cardiff")
    build(model, dataset.train.texts, dataset.labels, tmp_path / "tweets")
    origin = TransformerClassifier.load(tmp_path / "tweets", "cpu")
    exported = export(origin, None, "onnx", tmp_path)
    texts = ["so happy @ann", "so happy @bob-and-others"]
    batch = exported.encode(texts)
    assert np.array_equal(batch["input_ids"], origin.encode(texts)["input_ids"].numpy())
    assert not np.array_equal(
        batch["input_ids"], np.asarray(exported.encode(["so happy ann", "so bob"])["input_ids"])
    )


def initializers(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def test_an_lstm_in_int8_is_smaller_and_mostly_equal(tiny_run: Path, tmp_path: Path) -> None:
    origin = lstm(tiny_run, num_layers=2, pooling="attention")
    origin.module.embedding = torch.nn.Embedding(origin.tokenizer.get_vocab_size(), 12)
    files = tmp_path / "onnx"
    plain = export(origin, None, "onnx", tmp_path)
    size = (files / "model.onnx").stat().st_size
    assert onnx.TensorProto.INT8 not in initializers(files / "model.onnx")
    small = export(origin, dynamic, "onnx-int8", tmp_path)
    assert (files / "model.onnx").stat().st_size < 0.7 * size
    assert onnx.TensorProto.INT8 in initializers(files / "model.onnx")
    assert (plain.dtype, small.dtype) == ("fp32", "int8")
    assert (plain.name, small.name) == ("tiny (onnx)", "tiny (onnx-int8)")
    assert small.num_parameters() == plain.num_parameters() == origin.num_parameters()
    operators = {node.op_type for node in onnx.load(files / "model.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in operators
    assert not {"LSTM", "MatMulInteger"} & operators
    assert {path.name for path in files.iterdir()} == {
        "model.onnx", "onnx.json", "labels.json", "tokenizer.json",
    }  # fmt: skip
    # Without the longest text, in which a random network accumulates errors.
    before, after = plain.logits(TEXTS[:-1]), small.logits(TEXTS[:-1])
    assert not np.array_equal(before, after)
    assert after == pytest.approx(before, abs=0.02)


@each_family
def test_a_transformer_in_int8_is_smaller_and_mostly_equal(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(folders[family], "cpu")
    path = tmp_path / "onnx" / "model.onnx"
    small = export(origin, dynamic, "onnx-int8", tmp_path)
    weights = sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
    assert weights < 0.4 * (origin.folder / MODEL).stat().st_size
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulInteger") >= 12  # six matrices in each of two blocks
    assert "MatMul" in operators[-3:] or "Gemm" in operators[-3:]  # the head is in fp32
    texts = dataset.train.texts
    same = origin.logits(texts).argmax(axis=1) == small.logits(texts).argmax(axis=1)
    assert same.mean() > 0.7


def test_a_copy_with_different_logits_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = conversion.lstm_graph

    def wrong(weights: dict[str, Any], config: ModelConfig) -> onnx.ModelProto:
        bias = weights["head.bias"] + np.float32([0, 0, 1e-3])
        return right({**weights, "head.bias": bias}, config)

    monkeypatch.setattr(conversion, "lstm_graph", wrong)
    with pytest.raises(FeatherweightError, match=r"gives different results .*0\.001") as caught:
        export(lstm(tiny_run), None, "onnx", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_cannot_be_traced_is_refused_in_one_line(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    origin = TransformerClassifier.load(folders["bert"], "cpu")

    def forward(*_: Any, **__: Any) -> None:
        raise RuntimeError("unsupported operator\nwith a long story")

    origin.model.forward = forward
    with pytest.raises(FeatherweightError, match=r"exported to ONNX \(unsupported") as caught:
        export(origin, None, "onnx", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_origin_does_not_change_and_nothing_is_printed(
    bert: TransformerClassifier, tiny_run: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for origin in (bert, lstm(tiny_run)):
        before = origin.logits(TEXTS)
        export(origin, dynamic, "onnx", tmp_path)
        # With dropout enabled, the logits would differ each time.
        assert np.array_equal(origin.logits(TEXTS), before)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    assert caplog.messages == []


# The verb


@pytest.fixture(scope="module")
def variants(
    tiny_run: Path, folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> list[Run]:
    """An exported LSTM and an exported transformer in int8; the latency of the LSTM is measured."""
    outputs = tmp_path_factory.mktemp("outputs")
    shutil.copytree(tiny_run, outputs / "tiny")
    shutil.copytree(tiny_run, outputs / "bert")
    (outputs / "bert" / MODEL).unlink()
    shutil.copytree(folders["bert"], outputs / "bert" / TRANSFORMER)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporting, "confusion_matrix", lambda _: b"a picture")
        lstm = compressed(outputs / "tiny", "onnx")
        patched.setattr(variant, "_latency_ms", lambda *_: LATENCIES)
        return [lstm, compressed(outputs / "bert", "onnx-int8")]


@pytest.mark.parametrize("kind", ["LSTM", "transformer"])
def test_a_variant_is_a_run_with_latencies(variants: list[Run], kind: str) -> None:
    run = variants[0 if kind == "LSTM" else 1]
    origin = Run(run.path.parent.parent)
    assert {path.name for path in run.path.iterdir()} == {
        "onnx", "config.json", "labels.json", "data.json", "environment.json",
        "compression.json", "evaluation.json", "predictions.csv", "confusion_matrix.png",
        "README.md",
    }  # fmt: skip
    assert [path.name for path in run.path.parent.iterdir()] == [run.path.name]
    record = run.read_json("compression.json")
    assert set(record["latency_ms"]) == {"1", "32"}
    assert all(ms["before"] > 0 and ms["after"] > 0 for ms in record["latency_ms"].values())
    assert "speed on the CPU" in record["gain"]
    size = sum(path.stat().st_size for path in run.file("onnx").iterdir())
    assert record["size_bytes"] == {
        "before": load(origin.path, "cpu").size_bytes(),
        "after": size,
    }
    classifier = load(run.path, "cuda")  # always on the CPU
    assert (classifier.device, classifier.backend) == ("cpu", "onnxruntime")
    assert classifier.name == f"{origin.path.name} ({run.path.name})"
    assert record["touched"]["after"] == {
        kind: {"parameters": classifier.num_parameters(), "formats": [classifier.dtype]}
    }
    assert {name for part in record["touched"]["before"].values() for name in part["formats"]} == {
        "fp32"
    }


def test_variants_of_both_kinds_predict_and_compare(
    variants: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(run.path) for run in variants]
    for path in paths:
        assert main(["predict", "--weights", path, "--json", "so happy"]) == 0
        assert '"text": "so happy"' in capsys.readouterr().out
    monkeypatch.setattr(compare, "measure", lambda *_, **__: [])
    assert main(["compare", *paths, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "tiny (onnx" in out
    assert "bert (onnx-int8" in out


def test_a_missing_onnx_is_named_with_its_extra(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run, tmp_path / "tiny")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "compress.onnx.conversion")
    with pytest.raises(MissingExtraError, match=r"^onnx is .*'featherweight\[onnx\]'$"):
        compressed(tmp_path / "tiny", "onnx")
    assert list((tmp_path / "tiny" / "compressed").iterdir()) == []


def test_only_what_is_slower_at_every_batch_size_is_rejected() -> None:
    fast, slow = {"before": 2.0, "after": 1.0}, {"before": 1.0, "after": 2.0}
    even = {"before": 1.0, "after": 1.0}
    assert slowdown({}) == ""
    for other in (fast, even):
        assert slowdown({"1": slow, "32": other}) == ""
        assert slowdown({"1": other, "32": slow}) == ""
    why = slowdown({"1": {"before": 0.1234, "after": 0.5678}, "32": slow})
    assert why == (
        "it is slower on the CPU: 0.568 ms instead of 0.123 at batch size 1, "
        "2 ms instead of 1 at batch size 32"
    )
