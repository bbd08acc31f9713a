"""An LSTM or a transformer -> a folder of ONNX files, checked against what it was made from.

In dynamic int8, embeddings and the matrices of LSTM layers or transformer blocks are stored in
integers, and what meets those matrices is rounded as it comes; biases, normalization and the head
stay in fp32. What is rounded shares a scale in its batch, so the logits of a text depend a little
on the texts beside it.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import copy
import hashlib
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
from lstm.classifier import TextClassifier
from lstm.tokenizer import PAD_ID

_OPSET = 17
_TRACED = (12, 9)  # tokens of the texts that a transformer is exported with
_CHECKED = ((1,), (7,), (40,), (1, 7, 40))  # and of those that it is compared on, in batches
_TOLERANCE = 1e-4  # of a logit up to 1; of larger ones this share
_INT8: Mapping[str, Sequence[str]] = {
    "lstm": ("Gather", "LSTM"),
    "transformer": ("Gather", "MatMul"),
}

# Takes the copy in fp32, its prepared graph, and where to write the graph in int8.
Quantizer = Callable[[OnnxClassifier, Path, Path], None]


class _Origin(NamedTuple):
    """What was exported.

    Attributes:
        facts: What `onnx.json` must say of it.
        inputs: Makes a batch of random texts, given their lengths.
        answer: Returns the logits (B, C) of a batch by the network itself.
    """

    facts: dict[str, Any]
    inputs: Callable[[Sequence[int]], Inputs]
    answer: Callable[[Inputs], FloatArray]


def export(
    classifier: Classifier, quantizer: Quantizer | None, method: str, workspace: Path
) -> OnnxClassifier:
    """Returns a copy that onnxruntime computes.

    Args:
        classifier: An LSTM, or a transformer with a classification head.
        quantizer: Makes its weights int8; None: they stay in fp32.
        method: What stands in brackets behind its name.
        workspace: Folder in which it is written, as `onnx`.

    Raises:
        FeatherweightError: It cannot be exported, or the copy answers otherwise.
    """
    folder = workspace / ONNX
    shutil.rmtree(folder, ignore_errors=True)  # what a kill may have left
    folder.mkdir()
    Run(folder).write_json(LABELS, classifier.labels)
    with _in_silence():
        if isinstance(classifier, TextClassifier):
            origin = _lstm(classifier, folder)
        else:
            origin = _transformer(classifier, folder)
        facts = {
            **origin.facts,
            "name": f"{classifier.name} ({method})",
            "num_parameters": classifier.num_parameters(),
        }
        exported = _loaded(folder, {**facts, "dtype": "fp32"})
        _check(exported, origin)
        if quantizer is None:
            return exported
        prepared = folder / "prepared.onnx"
        quant_pre_process(folder / ONNX_MODEL, prepared, auto_merge=True)
        quantizer(exported, prepared, folder / ONNX_MODEL)
        prepared.unlink()
        return _loaded(folder, {**facts, "dtype": "int8"})


def _lstm(classifier: TextClassifier, folder: Path) -> _Origin:
    state = classifier.module.state_dict()
    weights = {name: tensor.float().cpu().numpy() for name, tensor in state.items()}
    onnx.save(lstm_graph(weights, classifier.config), folder / ONNX_MODEL)
    Run(folder).write_text(TOKENIZER, classifier.tokenizer.to_str())
    vocab_size = classifier.tokenizer.get_vocab_size()
    module = copy.deepcopy(classifier.module).cpu().float()

    def inputs(lengths: Sequence[int]) -> Inputs:
        rng = np.random.default_rng(0)  # whose numbers are all ids but that of padding
        return graph_inputs(
            [rng.integers(PAD_ID + 1, vocab_size, length).tolist() for length in lengths]
        )

    def answer(batch: Inputs) -> FloatArray:
        ids, lengths = (torch.from_numpy(batch[name]).long() for name in ("input_ids", "lengths"))
        logits: FloatArray = module(ids, lengths).numpy()
        return logits

    return _Origin({"kind": "lstm"}, inputs, answer)


def _transformer(classifier: Any, folder: Path) -> _Origin:
    # Here, since whoever has no transformer may lack its library.
    from transformer_eval.classifier import NORMALIZER

    classifier.tokenizer.save_pretrained(folder)
    classifier.model.config.save_pretrained(folder)  # says what kind the tokenizer is of
    names = list(classifier.encode(["a text"]))
    longest, vocab_size = classifier.max_length, len(classifier.tokenizer)
    network = _OnlyLogits(copy.deepcopy(classifier.model).cpu(), names)

    def inputs(lengths: Sequence[int]) -> Inputs:
        rng = np.random.default_rng(0)
        batch = graph_inputs(
            [rng.integers(0, vocab_size, min(length, longest)).tolist() for length in lengths]
        )
        behind = np.arange(batch["input_ids"].shape[1]) >= batch["lengths"][:, None]
        given = {
            "input_ids": np.where(behind, classifier.tokenizer.pad_token_id, batch["input_ids"]),
            "attention_mask": np.where(behind, 0, 1),
        }
        # What else a tokenizer returns tells sentences apart, and there is only one.
        return {name: given.get(name, np.zeros_like(given["input_ids"])) for name in names}

    def answer(batch: Inputs) -> FloatArray:
        logits: FloatArray = network(*_tensors(batch)).numpy()
        return logits

    try:
        _trace(network, inputs(_TRACED), folder / ONNX_MODEL)
    except Exception as error:  # as many kinds as architectures
        reason = first_line(error)
        raise FeatherweightError(
            f"{classifier.name} cannot be exported to ONNX ({reason}): compress another model"
        ) from error
    normalizer = getattr(classifier.model.config, NORMALIZER, None)
    facts = {"kind": "transformer", "max_length": longest, "normaliser": normalizer}
    return _Origin(facts, inputs, answer)


class _OnlyLogits(torch.nn.Module):
    """A transformer as a function of plain tensors, which is what can be traced."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        # The exporter gives all modules the mode of the outermost, which would bring dropout back.
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
        dynamo=False,  # the newer exporter has been seen to freeze the length
    )


def dynamic(exported: OnnxClassifier, prepared: Path, path: Path) -> None:
    """Makes the weights of a graph int8; what meets them is rounded as it comes.

    Args:
        exported: The copy in fp32.
        prepared: Its graph, with the shapes written down.
        path: Where the graph in int8 is written.
    """
    quantize_dynamic(
        prepared,
        path,
        op_types_to_quantize=list(_INT8[exported.kind]),
        nodes_to_exclude=head(prepared) if exported.kind == "transformer" else [],
        per_channel=True,
        # Matrices in 7 bits: in 8, products overflow on processors without VNNI instructions.
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def head(graph: Path) -> list[str]:
    """Returns the names by which quantizers know the layer that makes a transformer's logits."""
    nodes = onnx.load(graph).graph.node
    # All other matrices lead to it, so it is the last of them.
    name = [node.name for node in nodes if node.op_type in ("Gemm", "MatMul")][-1]
    return [name, f"{name}_MatMul"]  # the latter where a Gemm is taken apart first


def _loaded(folder: Path, facts: dict[str, Any]) -> OnnxClassifier:
    """Writes what there is to know of a folder's model, and loads it."""
    sha256 = hashlib.sha256((folder / ONNX_MODEL).read_bytes()).hexdigest()
    Run(folder).write_json(ONNX_FACTS, {**facts, "sha256": sha256})
    return OnnxClassifier.load(folder)


@torch.no_grad()
def _check(exported: OnnxClassifier, origin: _Origin) -> None:
    """Compares both on texts of several lengths, alone and together.

    Raises:
        FeatherweightError: They differ by more than rounding.
    """
    for lengths in _CHECKED:
        batch = origin.inputs(lengths)
        ours, theirs = exported.forward(batch), origin.answer(batch)
        if not np.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise FeatherweightError(
                f"{exported.name} answers otherwise than what it was made from (by "
                f"{np.abs(ours - theirs).max():.2g} at {max(lengths)} tokens): use that instead"
            )


@contextmanager
def _in_silence() -> Iterator[None]:
    """Keeps to itself what exporter and quantizer print, warn of and log."""
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
