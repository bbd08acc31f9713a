"""Folder of ONNX files -> Classifier: computed by onnxruntime on the CPU, without PyTorch.

The folder holds `model.onnx` (graph and weights), `labels.json`, the tokenizer's files, and
`onnx.json` with the kind of the model and the SHA-256 of `model.onnx`.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from featherweight.classifier import Classifier, FloatArray, IntArray, count_known
from featherweight.data.texts import as_texts
from featherweight.errors import WeightsError, first_line
from featherweight.run import ONNX, ONNX_FACTS, ONNX_MODEL, TOKENIZER, Run
from lstm.tokenizer import load_tokenizer, padded, token_ids, unknown_ids

LABELS = "labels.json"

Inputs = Mapping[str, npt.NDArray[Any]]  # by the names of the graph's inputs


class Encoder(NamedTuple):
    """Texts -> inputs of the graph."""

    encode: Callable[[Sequence[str]], tuple[Inputs, int]]  # returns the number of cut texts, too
    unknown_ids: Sequence[int]  # token ids that are no known word


class OnnxClassifier(Classifier):
    """An exported LSTM or transformer.

    It computes with OMP_NUM_THREADS threads, a variable that onnxruntime itself does not read;
    without it, with one thread per core, as PyTorch does.

    Attributes:
        kind: "lstm" or "transformer".
        input_names: Names of the graph's inputs.
    """

    backend = "onnxruntime"
    device = "cpu"  # whatever device was requested: the graphs are made for the CPU

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], labels: tuple[str, ...], encoder: Encoder,
        session: onnxruntime.InferenceSession,
    ) -> None:  # fmt: skip
        self.name = str(facts["name"])
        self.kind = str(facts["kind"])
        self.dtype = str(facts["dtype"])
        self.labels = labels
        self._folder = folder
        self._encoder = encoder
        self._session = session
        self.input_names = [node.name for node in session.get_inputs()]
        self._num_parameters = int(facts["num_parameters"])
        self._size_bytes = sum(path.stat().st_size for path in folder.iterdir())

    @classmethod
    def load(cls, folder: Path) -> "OnnxClassifier":
        """Loads an exported folder.

        Raises:
            WeightsError: A file is missing, damaged, or was changed after the export.
        """
        facts = Run(folder).read_json(ONNX_FACTS)
        labels = Run(folder).read_json(LABELS)
        path = folder / ONNX_MODEL
        if not path.is_file():
            raise WeightsError(f"{folder} has no {ONNX_MODEL}: export it again")
        content = path.read_bytes()
        try:
            if hashlib.sha256(content).hexdigest() != facts["sha256"]:
                raise WeightsError(f"{path} was altered or truncated: copy it again")
            session = _session(path, content)
            if session.get_outputs()[0].shape[1] != len(labels):
                raise WeightsError(f"{folder / LABELS} has {len(labels)} labels, unlike the model")
            encoder = _ENCODERS[facts["kind"]](folder, facts)
            return cls(folder, facts, tuple(labels), encoder, session)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise WeightsError(f"{folder} does not fit this version ({error!r})") from None

    def save_in(self, run: Run) -> None:
        """Copies its files into a run."""
        shutil.copytree(self._folder, run.file(ONNX))

    def encode(self, texts: Sequence[str]) -> Inputs:
        """Tokenizes B texts and pads them to the longest."""
        inputs, truncated = self._encoder.encode(as_texts(texts))
        self.truncated_texts += truncated
        return inputs

    def forward(self, batch: Inputs) -> FloatArray:
        """Returns the logits (B, C) as float32."""
        # A graph drops inputs that have no effect, and does not accept them.
        return self._session.run(None, {name: batch[name] for name in self.input_names})[0]

    def num_tokens(self, batch: Inputs) -> int:
        """Returns the number of tokens without padding."""
        return int(batch["lengths" if self.kind == "lstm" else "attention_mask"].sum())

    def known_words(self, texts: Iterable[str]) -> IntArray:
        """Returns the number of tokens of each text (N,), neither unknown nor special ones."""

        def input_ids(batch: list[str]) -> IntArray:
            return np.asarray(self._encoder.encode(batch)[0]["input_ids"])

        return count_known(texts, input_ids, self._encoder.unknown_ids)

    def num_parameters(self) -> int:
        """Returns the number of parameters of the exported network."""
        return self._num_parameters

    def size_bytes(self) -> int:
        """Returns the size of the folder's files."""
        return self._size_bytes


def _session(path: Path, content: bytes) -> onnxruntime.InferenceSession:
    """Returns a session for the content of a file."""
    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0  # 0: one per core
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        # From the hashed bytes: the file could change, or refer to other files.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base class
        raise WeightsError(
            f"{path} is not a model for this onnxruntime ({first_line(error)})"
        ) from None


def graph_inputs(ids: Sequence[Sequence[int]]) -> Inputs:
    """Returns the inputs of an LSTM's graph for B lists of token ids.

    Returns:
        `input_ids` (B, T) int64, padded on the right, and `lengths` (B,) int32.
    """
    input_ids, lengths = padded(ids)
    return {"input_ids": input_ids, "lengths": lengths.astype(np.int32)}


def _lstm_encoder(folder: Path, _: Mapping[str, Any]) -> Encoder:
    path = folder / TOKENIZER
    if not path.is_file():
        raise WeightsError(f"{folder} has no {TOKENIZER}: export it again")
    tokenizer = load_tokenizer(path.read_text(encoding="utf-8"))

    def encode(texts: Sequence[str]) -> tuple[Inputs, int]:
        ids, truncated = token_ids(tokenizer, texts)
        return graph_inputs(ids), truncated

    return Encoder(encode, unknown_ids(tokenizer))


def _transformer_encoder(folder: Path, facts: Mapping[str, Any]) -> Encoder:
    # Imported here because an LSTM needs neither transformers nor PyTorch.
    from transformer_eval.classifier import load_tokenizer
    from transformer_eval.tokenization import tokenized, unknown_token_ids

    tokenizer = load_tokenizer(folder)
    max_length, normalizer = int(facts["max_length"]), facts["normaliser"]

    def encode(texts: Sequence[str]) -> tuple[Inputs, int]:
        batch, truncated = tokenized(tokenizer, texts, normalizer, max_length, "np")
        return dict(batch), truncated

    return Encoder(encode, unknown_token_ids(tokenizer))


_ENCODERS = {"lstm": _lstm_encoder, "transformer": _transformer_encoder}
