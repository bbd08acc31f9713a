"""LSTM or transformer -> folder of ONNX files, checked against the original network.

In dynamic int8, embeddings and the matrices of LSTM layers or transformer blocks are stored in
integers, and activations are quantized at run time; biases, normalization and the head stay in
fp32. The activations of a batch share one scale, so the logits of a text depend slightly on the
other texts of its batch.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import copy
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from compress.onnx.classifier import LABELS, Inputs, OnnxClassifier, graph_inputs
from compress.onnx.lstm_graph import lstm_graph
from featherweight.classifier import Classifier, FloatArray
from featherweight.errors import FeatherweightError, first_line
from featherweight.run import ONNX, ONNX_FACTS, ONNX_MODEL, TOKENIZER, Run
from featherweight.weights import file_sha256
from lstm.classifier import TextClassifier
from lstm.tokenizer import PAD_ID

_OPSET = 17
_TRACED = (12, 9)  # tokens of the texts of the batch that is traced
_CHECKED = ((1,), (7,), (40,), (1, 7, 40))  # tokens of the texts of the batches that are compared
_TOLERANCE = 1e-4  # absolute and relative, per logit
_INT8: Mapping[str, Sequence[str]] = {
    "lstm": ("Gather", "LSTM"),
    "transformer": ("Gather", "MatMul"),
}

# Takes the copy in fp32, the path of its preprocessed graph, and the path of the int8 graph.
Quantizer = Callable[[OnnxClassifier, Path, Path], None]


class _Reference(NamedTuple):
    """The network that was exported."""

    facts: dict[str, Any]  # its entries of `onnx.json`
    inputs: Callable[[Sequence[int]], Inputs]  # lengths -> batch of random texts
    logits: Callable[[Inputs], FloatArray]  # batch -> (B, C), computed by the network itself


def export(
    classifier: Classifier, quantizer: Quantizer | None, method: str, workspace: Path
) -> OnnxClassifier:
    """Returns a copy that onnxruntime computes.

    Args:
        classifier: An LSTM, or a transformer with a classification head.
        quantizer: Converts the weights to int8; None: they stay in fp32.
        method: Suffix of its name.
        workspace: Its files are written to the folder `onnx` in it.

    Raises:
        FeatherweightError: It cannot be exported, or the copy gives different results.
    """
    folder = workspace / ONNX
    shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted export
    folder.mkdir()
    Run(folder).write_json(LABELS, classifier.labels)
    with _silenced():
        write = _write_lstm if isinstance(classifier, TextClassifier) else _write_transformer
        reference = write(classifier, folder)
        facts = {
            **reference.facts,
            "name": f"{classifier.name} ({method})",
            "num_parameters": classifier.num_parameters(),
        }
        exported = _loaded(folder, {**facts, "dtype": "fp32"})
        _check(exported, reference)
        if quantizer is None:
            return exported
        prepared = folder / "prepared.onnx"
        quant_pre_process(folder / ONNX_MODEL, prepared, auto_merge=True)
        quantizer(exported, prepared, folder / ONNX_MODEL)
        prepared.unlink()
        return _loaded(folder, {**facts, "dtype": "int8"})


def _write_lstm(classifier: Any, folder: Path) -> _Reference:
    state = classifier.module.state_dict()
    weights = {name: tensor.float().cpu().numpy() for name, tensor in state.items()}
    onnx.save(lstm_graph(weights, classifier.config), folder / ONNX_MODEL)
    Run(folder).write_text(TOKENIZER, classifier.tokenizer.to_str())
    vocab_size = classifier.tokenizer.get_vocab_size()
    module = copy.deepcopy(classifier.module).cpu().float()

    def inputs(lengths: Sequence[int]) -> Inputs:
        return graph_inputs(_random_ids(lengths, PAD_ID + 1, vocab_size))

    def logits(batch: Inputs) -> FloatArray:
        ids, lengths = (torch.from_numpy(batch[name]).long() for name in ("input_ids", "lengths"))
        return module(ids, lengths).numpy()

    return _Reference({"kind": "lstm"}, inputs, logits)


def _write_transformer(classifier: Any, folder: Path) -> _Reference:
    # Imported here because LSTMs do not need the library.
    from transformer_eval.classifier import NORMALIZER

    classifier.tokenizer.save_pretrained(folder)
    classifier.model.config.save_pretrained(folder)  # names the class of the tokenizer
    names = list(classifier.encode(["a text"]))
    max_length, vocab_size = classifier.max_length, len(classifier.tokenizer)
    network = _OnlyLogits(copy.deepcopy(classifier.model).cpu(), names)

    def inputs(lengths: Sequence[int]) -> Inputs:
        lengths = [min(length, max_length) for length in lengths]
        batch = graph_inputs(_random_ids(lengths, 0, vocab_size))
        padding = np.arange(batch["input_ids"].shape[1]) >= batch["lengths"][:, None]
        arrays = {
            "input_ids": np.where(padding, classifier.tokenizer.pad_token_id, batch["input_ids"]),
            "attention_mask": np.where(padding, 0, 1),
        }
        # The only other input is the index of the sentence, and there is only one sentence.
        return {name: arrays.get(name, np.zeros_like(arrays["input_ids"])) for name in names}

    def logits(batch: Inputs) -> FloatArray:
        return network(*_tensors(batch)).numpy()

    try:
        _trace(network, inputs(_TRACED), folder / ONNX_MODEL)
    except Exception as error:  # its type depends on the architecture
        raise FeatherweightError(
            f"{classifier.name} cannot be exported to ONNX ({first_line(error)}): "
            "compress another model"
        ) from error
    normalizer = getattr(classifier.model.config, NORMALIZER, None)
    facts = {"kind": "transformer", "max_length": max_length, "normaliser": normalizer}
    return _Reference(facts, inputs, logits)


def _random_ids(lengths: Sequence[int], low: int, high: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(low, high, length).tolist() for length in lengths]


class _OnlyLogits(torch.nn.Module):
    """A transformer as a function of plain tensors, as tracing requires."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        # The exporter applies the mode of the outermost module to all; training mode has dropout.
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns the logits (B, C)."""
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def _tensors(batch: Inputs) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in batch.values())


def _trace(network: torch.nn.Module, example: Inputs, path: Path) -> None:
    axes = {name: {0: "batch", 1: "length"} for name in example}
    torch.onnx.export(
        network,
        _tensors(example),
        str(path),
        input_names=list(example),
        output_names=["logits"],
        dynamic_axes=axes | {"logits": {0: "batch"}},
        opset_version=_OPSET,
        dynamo=False,  # the newer exporter makes the length constant for some models
    )


def dynamic(exported: OnnxClassifier, prepared: Path, path: Path) -> None:
    """Writes a graph in dynamic int8; a `Quantizer`."""
    quantize_dynamic(
        prepared,
        path,
        op_types_to_quantize=list(_INT8[exported.kind]),
        nodes_to_exclude=head(prepared) if exported.kind == "transformer" else [],
        per_channel=True,
        # 7-bit matrices: with 8 bits, products overflow on processors without VNNI instructions.
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def head(graph: Path) -> list[str]:
    """Returns the names that quantizers use for the layer of a transformer's logits."""
    nodes = onnx.load(graph).graph.node
    # It is the last matrix of the graph.
    name = [node.name for node in nodes if node.op_type in ("Gemm", "MatMul")][-1]
    return [name, f"{name}_MatMul"]  # the latter if a Gemm is split first


def _loaded(folder: Path, facts: dict[str, Any]) -> OnnxClassifier:
    """Writes `onnx.json` of an exported folder, and loads it."""
    facts["sha256"] = file_sha256(folder / ONNX_MODEL)
    Run(folder).write_json(ONNX_FACTS, facts)
    return OnnxClassifier.load(folder)


@torch.no_grad()
def _check(exported: OnnxClassifier, reference: _Reference) -> None:
    """Compares the logits on texts of several lengths, one by one and in a batch."""
    for lengths in _CHECKED:
        batch = reference.inputs(lengths)
        actual, expected = exported.forward(batch), reference.logits(batch)
        if not np.allclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise FeatherweightError(
                f"{exported.name} gives different results from the original model (by "
                f"{np.abs(actual - expected).max():.2g} at {max(lengths)} tokens): "
                "use the original"
            )


@contextmanager
def _silenced() -> Iterator[None]:
    """Suppresses what exporter and quantizer print, warn about and log."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
