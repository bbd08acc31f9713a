import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.config import CompressConfig
from compress.onnx import conversion
from compress.onnx.conversion import Quantizer, dynamic, export
from compress.variant import compress_run, slower
from featherweight import load
from featherweight.cli import main
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import FeatherweightError, MissingExtraError, UsageError
from featherweight.reports import reporting
from featherweight.run import MODEL, TRANSFORMER, Run
from lstm.classifier import TextClassifier
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone tonight and the house is dark",
         "why, why, why???", "happy " * 60]  # fmt: skip
LABELS = ("sadness", "anger", "joy")
# Weights 25 times wider than usual, or all texts would get nearly equal logits.
_SIZES = {"vocab_size": 600, "initializer_range": 0.5}
_TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    **_SIZES,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": _TINY,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, **_SIZES},
    "roberta": {**_TINY, "max_position_embeddings": 66, "type_vocab_size": 1},
}


@pytest.fixture(scope="module")
def words(tiny_data: Path) -> Sequence[str]:
    return load_dataset(DataConfig(data=str(tiny_data))).train.texts


@pytest.fixture(scope="module")
def transformers(words: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny transformer of each family."""
    parent = tmp_path_factory.mktemp("transformers")
    for family, sizes in FAMILIES.items():
        build(Pretrained(f"acme/tiny-{family}", family, sizes), words, LABELS, parent / family)
    return parent


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


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", ["last", "max", "mean", "attention"])
def test_an_lstm_of_any_shape_answers_as_before(
    tiny_run: Path, tmp_path: Path, num_layers: int, bidirectional: bool, pooling: Any
) -> None:
    origin = lstm(tiny_run, num_layers=num_layers, bidirectional=bidirectional, pooling=pooling)
    exported = export(origin, None, "onnx", tmp_path)
    expected = origin.logits(TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert exported.logits(TEXTS) == pytest.approx(expected, abs=1e-5)
    # Longest first and alone: neither place nor padding makes a difference.
    for text, logits in zip(TEXTS, expected, strict=True):
        assert exported.forward(exported.encode([text]))[0] == pytest.approx(logits, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_answers_as_before_at_every_length(
    transformers: Path, tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(transformers / family, "cpu")
    exported = export(origin, None, "onnx", tmp_path)
    texts = [*TEXTS, *("i am so glad today"[:length] for length in range(1, 18, 3))]
    expected = origin.logits(texts)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert exported.logits(texts) == pytest.approx(expected, abs=1e-4)
    for text, logits in zip(texts, expected, strict=True):
        assert exported.forward(exported.encode([text]))[0] == pytest.approx(logits, abs=1e-4)
    assert exported.labels == LABELS
    assert exported.num_parameters() == origin.num_parameters()


def test_texts_are_cut_where_they_were_and_counted(transformers: Path, tmp_path: Path) -> None:
    origin = TransformerClassifier.load(transformers / "roberta", "cpu")
    exported = export(origin, None, "onnx", tmp_path)
    fits, long = "happy " * 62, "happy " * 63
    assert origin.max_length == 64
    for classifier in (origin, exported):
        batch = classifier.encode([fits.strip(), long.strip(), "happy"])
        assert classifier.num_tokens(batch) == 64 + 64 + 3
        assert classifier.truncated_texts == 1


def test_a_normalizer_goes_along(words: Sequence[str], tmp_path: Path) -> None:
    model = Pretrained("acme/tweets", "bert", FAMILIES["bert"], normalizer="cardiff")
    build(model, words, LABELS, tmp_path / "tweets")
    origin = TransformerClassifier.load(tmp_path / "tweets", "cpu")
    exported = export(origin, None, "onnx", tmp_path)
    texts = ["so happy @ann", "so happy @bob-and-others"]
    batch = exported.encode(texts)
    assert np.array_equal(batch["input_ids"], origin.encode(texts)["input_ids"].numpy())
    assert not np.array_equal(
        batch["input_ids"], np.asarray(exported.encode(["so happy ann", "so bob"])["input_ids"])
    )


@pytest.mark.parametrize("quantizer", [None, dynamic])
def test_the_origin_stays_as_it_was(
    transformers: Path, tiny_run: Path, tmp_path: Path, quantizer: Quantizer | None
) -> None:
    for origin in (TransformerClassifier.load(transformers / "bert", "cpu"), lstm(tiny_run)):
        before = origin.logits(TEXTS)
        export(origin, quantizer, "onnx", tmp_path)
        # With dropout back on it would answer differently each time.
        assert np.array_equal(origin.logits(TEXTS), before)


def initializers(path: Path) -> set[int]:
    return {it.data_type for it in onnx.load(path).graph.initializer}


def test_an_lstm_in_int8_is_smaller_and_mostly_agrees(tiny_run: Path, tmp_path: Path) -> None:
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
    # Without the text of one word 60 times, in which a random network can add up any error.
    before, after = plain.logits(TEXTS[:-1]), small.logits(TEXTS[:-1])
    assert not np.array_equal(before, after)
    assert after == pytest.approx(before, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_in_int8_is_smaller_and_mostly_agrees(
    transformers: Path, words: Sequence[str], tmp_path: Path, family: str
) -> None:
    origin = TransformerClassifier.load(transformers / family, "cpu")
    path = tmp_path / "onnx" / "model.onnx"
    plain = export(origin, None, "onnx", tmp_path)
    size = path.stat().st_size
    small = export(origin, dynamic, "onnx-int8", tmp_path)
    assert path.stat().st_size < 0.6 * size
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulInteger") >= 12  # six matrices in each of two blocks
    assert "MatMul" in operators[-3:] or "Gemm" in operators[-3:]  # the head stays in fp32
    before, after = plain.predict(words), small.predict(words)
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert sum(same) / len(same) > 0.7


def test_a_copy_that_answers_otherwise_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = conversion.lstm_graph

    def wrong(weights: dict[str, Any], config: ModelConfig) -> onnx.ModelProto:
        bias = weights["head.bias"] + np.float32([0, 0, 1e-3])
        return right({**weights, "head.bias": bias}, config)

    monkeypatch.setattr(conversion, "lstm_graph", wrong)
    with pytest.raises(FeatherweightError, match=r"answers otherwise .*0\.001") as caught:
        export(lstm(tiny_run), None, "onnx", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_cannot_be_traced_is_refused_in_one_line(
    transformers: Path, tmp_path: Path
) -> None:
    origin = TransformerClassifier.load(transformers / "bert", "cpu")

    def forward(*_: Any, **__: Any) -> None:
        raise RuntimeError("unsupported operator\nwith a long story")

    origin.model.forward = forward
    with pytest.raises(FeatherweightError, match=r"exported to ONNX \(unsupported") as caught:
        export(origin, None, "onnx", tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_is_printed_or_warned_of(
    transformers: Path,
    tiny_run: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    export(TransformerClassifier.load(transformers / "bert", "cpu"), dynamic, "onnx", tmp_path)
    export(lstm(tiny_run), dynamic, "onnx", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [str(it.message) for it in recwarn] == []
    assert caplog.messages == []


# The verb


@pytest.fixture(scope="module")
def compressed(
    tiny_run: Path, words: Sequence[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder with runs of both kinds, each with its variants."""
    outputs = tmp_path_factory.mktemp("outputs")
    shutil.copytree(tiny_run, outputs / "tiny")
    shutil.copytree(tiny_run, outputs / "bert")
    (outputs / "bert" / MODEL).unlink()
    sizes = Pretrained("acme/tiny", "bert", FAMILIES["bert"])
    build(sizes, words, LABELS, outputs / "bert" / TRANSFORMER)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporting, "confusion_matrix", lambda _: b"a picture")
        for name, method in (("tiny", "onnx"), ("tiny", "onnx-int8"), ("bert", "onnx-int8")):
            compress_run(
                CompressConfig(weights=outputs / name, method=method, device="cpu")  # type: ignore[arg-type]
            )
        yield outputs


@pytest.mark.parametrize(("name", "method"), [("tiny", "onnx"), ("bert", "onnx-int8")])
def test_a_variant_is_a_run_with_its_times(compressed: Path, name: str, method: str) -> None:
    variant = Run(compressed / name / "compressed" / method)
    assert {path.name for path in variant.path.iterdir()} == {
        "onnx", "config.json", "labels.json", "data.json", "environment.json",
        "compression.json", "evaluation.json", "predictions.csv", "confusion_matrix.png",
        "README.md",
    }  # fmt: skip
    assert not (compressed / name / "compressed" / f".{method}").exists()
    record = variant.read_json("compression.json")
    assert set(record["latency_ms"]) == {"1", "32"}
    assert all(it["before"] > 0 and it["after"] > 0 for it in record["latency_ms"].values())
    assert "speed on the CPU" in record["gain"]
    size = sum(path.stat().st_size for path in variant.file("onnx").iterdir())
    assert record["size_bytes"] == {
        "before": load(compressed / name, "cpu").size_bytes(),
        "after": size,
    }
    classifier = load(variant.path, "cuda")  # there is none, and none is needed
    assert (classifier.name, classifier.device) == (f"{name} ({method})", "cpu")
    assert classifier.backend == "onnxruntime"
    kind = "LSTM" if name == "tiny" else "transformer"
    assert record["touched"]["after"] == {
        kind: {"parameters": classifier.num_parameters(), "formats": [classifier.dtype]}
    }
    if kind == "transformer":
        before = record["touched"]["before"].values()
        assert {it for part in before for it in part["formats"]} == {"fp32"}


def test_variants_of_both_kinds_are_asked_and_compared(
    compressed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [compressed / "tiny" / "compressed" / "onnx",
             compressed / "bert" / "compressed" / "onnx-int8"]  # fmt: skip
    for path in paths:
        assert main(["predict", "--weights", str(path), "--json", "so happy"]) == 0
        assert '"text": "so happy"' in capsys.readouterr().out
    flags = ["--device", "cpu", "--batch_sizes", "1"]
    assert main(["compare", *map(str, paths), *flags]) == 0
    out = capsys.readouterr().out
    assert "tiny (onnx" in out
    assert "bert (onnx-int8" in out


@pytest.mark.parametrize("method", ["int4", "qat-int4"])
def test_a_transformer_is_told_what_it_can_take(compressed: Path, method: Any) -> None:
    with pytest.raises(UsageError, match=r"does not fit .*bert: take .*onnx-int8") as caught:
        compress_run(CompressConfig(weights=compressed / "bert", method=method, device="cpu"))
    assert "\n" not in str(caught.value)


def test_without_onnx_its_extra_is_named(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run, tmp_path / "tiny")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "compress.onnx.conversion")
    config = CompressConfig(weights=tmp_path / "tiny", method="onnx", device="cpu")
    with pytest.raises(MissingExtraError, match=r"^onnx is .*'featherweight\[onnx\]'$"):
        compress_run(config)
    assert list((tmp_path / "tiny" / "compressed").iterdir()) == []


def test_only_what_is_slower_at_every_batch_size_is_rejected() -> None:
    fast, slow = {"before": 2.0, "after": 1.0}, {"before": 1.0, "after": 2.0}
    even = {"before": 1.0, "after": 1.0}
    assert slower({}) == ""
    for other in (fast, even):
        assert slower({"1": slow, "32": other}) == ""
        assert slower({"1": other, "32": slow}) == ""
    why = slower({"1": {"before": 0.1234, "after": 0.5678}, "32": slow})
    assert why == (
        "it is slower on the CPU: 0.568 ms after 0.123 at batch size 1, 2 ms after 1 at batch "
        "size 32"
    )
