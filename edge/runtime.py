"""Loads and runs a bundle with numpy, tokenizers and onnxruntime only.

    from edge.runtime import load

    model = load("bundle/")  # or bundle.zip
    model.predict(["i feel so happy today"])  # ["joy"]

A bundle is a folder or a zip file with five files: `model.onnx`, `tokenizer.json`, `labels.json`,
`golden.jsonl` (texts and their expected probabilities) and `bundle.json`, the metadata, which
includes the hash of each other file and of itself. The hashes show that a bundle arrived whole, not
who made it, so each file's content is checked when it is loaded. The graph runs in ONNX Runtime:
load bundles of makers you trust.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from edge.bundle_files import GOLDEN, LABELS, METADATA, MODEL, TOKENIZER, read
from edge.contents import check_graph, read_golden, read_labels, read_temperature, read_tokenizer
from featherweight.data.texts import as_texts
from featherweight.errors import DataError, WeightsError, first_line

TOLERANCE = 1e-3  # of a probability: rounding differs between processors

_UNKNOWN = np.int64(1).tobytes()  # <unk>, the only token of a text that has none
_ID_BYTES = len(_UNKNOWN)
_BATCH_TOKENS = 512  # larger batches are slower per text: their states exceed the fastest cache
_CHUNK_TEXTS = 8_192  # texts sorted by length at a time, which bounds the memory
_MAX_CACHED, _MAX_CACHED_LENGTH = 65_536, 64  # words, characters of a word

FloatArray = npt.NDArray[np.floating[Any]]


class _TokenCache(dict[str, bytes]):
    """Token ids of the words between spaces, as the bytes of int64.

    The normalizer and the pre-tokenizer never look across a space, so the ids of a text are the
    concatenated ids of its words, and most words occur again.
    """

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        self._tokenizer, self._source = tokenizer, source

    def __missing__(self, word: str) -> bytes:
        # The library refuses lone surrogates.
        valid = word.encode(errors="replace").decode()
        try:
            ids = self._tokenizer.encode(valid, add_special_tokens=False).ids
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is not an Exception
            reason = f"{TOKENIZER} fails on a text ({type(error).__name__})"
            raise WeightsError(f"{self._source}: {reason}") from None
        content = np.array(ids, np.int64).tobytes()
        if len(self) < _MAX_CACHED and len(word) <= _MAX_CACHED_LENGTH:
            self[word] = content
        return content


class Bundle:
    """A text classifier; its methods can be called from several threads at once.

    Attributes:
        classes_: (C,) the label names; the index is the class id.
        metadata: Content of `bundle.json`.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        metadata: Mapping[str, Any],
        threads: int = 1,
        source: str = "bundle",
    ) -> None:
        """Creates a bundle.

        Args:
            files: Content by file name, as `read` returns it.
            metadata: Content of `bundle.json`; only "temperature" is used.
            threads: CPU threads per batch.
            source: Where the files are from, for error messages.

        Raises:
            WeightsError: A file does not have the expected content.
        """
        self.metadata, self._source = metadata, source
        with self._reading(MODEL):
            self._session = _session(files[MODEL], threads)
            check_graph(self._session)
        with self._reading(LABELS):
            self._labels = read_labels(files[LABELS])
        num_outputs = self._session.get_outputs()[0].shape[1]
        if num_outputs != len(self._labels):
            reason = f"{LABELS} has {len(self._labels)} labels, {MODEL} has {num_outputs}"
            raise WeightsError(f"{source}: {reason}")
        with self._reading(METADATA):
            self._temperature = read_temperature(metadata)
        with self._reading(GOLDEN):
            self._golden = read_golden(files.get(GOLDEN, b""), len(self._labels))
        with self._reading(TOKENIZER):
            tokenizer, max_length = read_tokenizer(files[TOKENIZER])
        self._max_bytes = max_length * _ID_BYTES
        # The mark of a word's start is a token of its own before a word that is unknown.
        self._unknown_ids = {0, 1, tokenizer.token_to_id("▁")}
        self.classes_ = np.array(self._labels)
        self._token_cache = _TokenCache(tokenizer, source)
        # The runtime cannot read the rows of the embedding; a token without one makes it fail.
        with np.errstate(all="ignore"):  # an infinite logit is an error, without a warning
            self.forward([np.int64(tokenizer.get_vocab_size() - 1).tobytes()])

    def predict(self, texts: Iterable[str], min_confidence: float = 0.0) -> list[str]:
        """Returns the most probable label of each of N texts.

        Args:
            texts: The texts.
            min_confidence: Probability below which "" is returned instead of the label.
        """
        logits = self.logits(texts)
        labels = [self._labels[index] for index in logits.argmax(axis=1).tolist()]
        if not min_confidence:
            return labels
        confidences = _softmax(logits).max(axis=1).tolist()
        return [
            label if confidence >= min_confidence else ""
            for label, confidence in zip(labels, confidences, strict=True)
        ]

    def predict_proba(self, texts: Iterable[str]) -> FloatArray:
        """Returns calibrated probabilities (N, C), columns in the order of `classes_`."""
        return _softmax(self.logits(texts))

    def logits(self, texts: Iterable[str]) -> FloatArray:
        """Returns the logits (N, C) of N texts, divided by the temperature, as float32.

        Raises:
            UsageError: `texts` is a single string, or a table.
            DataError: An element is not a string; the message names its index.
        """
        texts = as_texts(texts)
        if len(texts) <= _CHUNK_TEXTS:
            return self.forward(self.encode(texts))
        starts = range(0, len(texts), _CHUNK_TEXTS)
        chunks = (texts[start : start + _CHUNK_TEXTS] for start in starts)
        return np.concatenate([self.forward(self.encode(chunk)) for chunk in chunks])

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Returns the token ids of each text as the bytes of int64, cut at the maximum length.

        Raises:
            DataError: An element is not a string.
        """
        ids, end = self._token_cache.__getitem__, self._max_bytes
        try:
            return [b"".join(map(ids, text.split(" ")))[:end] or _UNKNOWN for text in texts]
        except AttributeError:
            (kind, *_) = (type(text).__name__ for text in texts if not isinstance(text, str))
            raise DataError(f"a text is of type {kind}: give strings") from None

    def known_words(self, texts: Iterable[str]) -> npt.NDArray[np.int64]:
        """Returns the number of tokens of each of N texts that are in the vocabulary, (N,).

        A text with 0 is empty for the model: its prediction says nothing about the text.
        """
        rows = [np.frombuffer(row, np.int64).tolist() for row in self.encode(as_texts(texts))]
        return np.array([sum(i not in self._unknown_ids for i in row) for row in rows], np.int64)

    def is_truncated(self, text: str) -> bool:
        """Returns whether a text has more tokens than `encode` returns."""
        return sum(len(self._token_cache[word]) for word in text.split(" ")) > self._max_bytes

    def forward(self, rows: Sequence[bytes]) -> FloatArray:
        """Returns the logits (N, C) of the result of `encode`, divided by the temperature.

        Raises:
            WeightsError: The graph fails, or a logit is not finite.
        """
        if len(rows) == 1:  # without sorting, for latency
            return self._run(rows)
        logits = np.empty((len(rows), len(self._labels)), np.float32)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        while order:
            # Longest first: the longest text of a batch determines how many fit into it.
            size = max(1, _BATCH_TOKENS * _ID_BYTES // len(rows[order[-1]]))
            batch = order[-size:]
            del order[-size:]
            logits[batch] = self._run([rows[row] for row in batch])
        return logits

    def _run(self, rows: Sequence[bytes]) -> FloatArray:
        width = max(map(len, rows))
        padded = b"".join([row.ljust(width, b"\0") for row in rows])  # the id of <pad> is 0
        inputs = {
            "input_ids": np.ndarray((len(rows), width // _ID_BYTES), np.int64, padded),
            "lengths": np.array([len(row) // _ID_BYTES for row in rows], np.int32),
        }
        try:
            logits: FloatArray = self._session.run(["logits"], inputs)[0] / self._temperature
        except Exception as error:  # onnxruntime's errors have no common base class
            raise WeightsError(f"{self._source}: {MODEL} fails ({first_line(error)})") from None
        # The sum of squares is finite if all logits are; isfinite() takes 4 µs more for one text.
        if logits.shape != (len(rows), len(self._labels)) or not isfinite(np.vdot(logits, logits)):
            reason = f"{MODEL} gives logits that are not finite, or not one row per text"
            raise WeightsError(f"{self._source}: {reason}")
        return logits

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turns an error inside the context into a WeightsError that names the file."""
        try:
            yield
        except Exception as error:  # onnxruntime's and tokenizers' have no common base class
            reason = f"{name} does not fit this version ({first_line(error)})"
            raise WeightsError(f"{self._source}: {reason}") from None

    def verify(self) -> tuple[int, float]:
        """Predicts the golden texts and compares the probabilities with the expected ones.

        Returns:
            The number of texts, and the largest difference of a probability.

        Raises:
            WeightsError: There are no golden texts, or a probability differs too much.
        """
        if not self._golden:
            raise WeightsError(f"{self._source}: {GOLDEN} has no texts: export the run again")
        expected = np.array([row["probabilities"] for row in self._golden])
        actual = self.predict_proba([row["text"] for row in self._golden])
        differences = np.abs(actual - expected).max(axis=1)
        worst = int(differences.argmax())
        if not differences[worst] <= TOLERANCE:  # true for NaN, too
            raise WeightsError(
                f"{self._source}: line {worst + 1} of {GOLDEN}: a probability differs by "
                f"{differences[worst]:.2g} from the exported one, {TOLERANCE:g} is allowed"
            )
        return len(expected), float(differences[worst])


def load(path: str | Path, threads: int = 1) -> Bundle:
    """Loads a bundle.

    Args:
        path: A folder or a zip file.
        threads: CPU threads per batch.

    Raises:
        WeightsError: It is missing, damaged or not a bundle; the message names the path.
    """
    files = read(Path(path))
    return Bundle(files, json.loads(files[METADATA]), threads, str(path))


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a memory plan fits one shape, and batches have many
    options.log_severity_level = 4  # errors are raised, and not printed too
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"],
        enable_fallback=0,  # which retries with the same provider, and prints
    )  # fmt: skip


def _softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
