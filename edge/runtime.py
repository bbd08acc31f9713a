"""Loads and runs a bundle with numpy, tokenizers and onnxruntime only.

    from edge.runtime import load

    model = load("bundle/")  # or bundle.zip
    model.predict(["i feel so happy today"])  # ["joy"]

A bundle is a folder or a zip file with five files: `model.onnx`, `tokenizer.json`, `labels.json`,
`golden.jsonl` (texts and their expected probabilities) and `bundle.json`, the metadata, which
includes the hash of each other file and of itself.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from featherweight.data.texts import as_texts
from featherweight.errors import DataError, WeightsError, first_line

FORMAT = "featherweight-bundle/1"
METADATA = "bundle.json"
MODEL, TOKENIZER, LABELS, GOLDEN = "model.onnx", "tokenizer.json", "labels.json", "golden.jsonl"
HASHED = (MODEL, TOKENIZER, LABELS, GOLDEN)
_FILES = (METADATA, *HASHED)
TOLERANCE = 1e-3  # of a probability: rounding differs between processors

_UNKNOWN = np.int64(1).tobytes()  # <unk>, the only token of a text that has none
_ID_BYTES = len(_UNKNOWN)
_BATCH_TOKENS = 512  # larger batches are slower per text: their states exceed the fastest cache
_CHUNK_TEXTS = 8_192  # texts sorted by length at a time, which bounds the memory
_MAX_CACHED, _MAX_CACHED_LENGTH = 65_536, 64  # words, characters of a word
_MAX_FILE_BYTES = 1_000_000_000  # uncompressed; a small zip file must not exhaust the memory

FloatArray = npt.NDArray[np.floating[Any]]


class _TokenCache(dict[str, bytes]):
    """Token ids of the words between spaces, as the bytes of int64.

    The normalizer and the pre-tokenizer never look across a space, so the ids of a text are the
    concatenated ids of its words, and most words occur again.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        # The library refuses lone surrogates.
        valid = word.encode(errors="replace").decode()
        ids = self._tokenizer.encode(valid, add_special_tokens=False).ids
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
        try:
            self._session = _session(files[MODEL], threads)
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = f"{MODEL} is not a model for this onnxruntime ({first_line(error)})"
            raise WeightsError(f"{source}: {reason}") from None
        try:
            self._labels = [str(label) for label in json.loads(files[LABELS])]
            tokenizer = Tokenizer.from_str(files[TOKENIZER].decode())
            self._max_bytes = int((tokenizer.truncation or {})["max_length"]) * _ID_BYTES
            tokenizer.no_truncation()  # texts are truncated, not words
            # The mark of a word's start is a token of its own before a word that is unknown.
            self._unknown_ids = {0, 1, tokenizer.token_to_id("▁")}
            self._temperature = float(metadata["temperature"])
            self._golden = [json.loads(line) for line in files.get(GOLDEN, b"").splitlines()]
        except Exception as error:  # tokenizers raises plain Exception
            reason = f"does not fit this version ({first_line(error)})"
            raise WeightsError(f"{source}: {reason}") from None
        num_outputs = self._session.get_outputs()[0].shape[1]
        if num_outputs != len(self._labels):
            reason = f"{LABELS} has {len(self._labels)} labels, {MODEL} has {num_outputs}"
            raise WeightsError(f"{source}: {reason}")
        self.classes_ = np.array(self._labels)
        self._token_cache = _TokenCache(tokenizer)

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
        """Returns the logits (N, C) of the result of `encode`, divided by the temperature."""
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
        logits: FloatArray = self._session.run(["logits"], inputs)[0]
        return logits / self._temperature

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


def read(path: Path) -> dict[str, bytes]:
    """Returns the files of a bundle by name, after checking their hashes.

    Raises:
        WeightsError: A file is missing, damaged or not from a bundle; the message names it.
    """
    files = _read_folder(path) if path.is_dir() else _read_zip(path)
    for name in _FILES:
        if name not in files:
            raise WeightsError(f"{path} has no {name}: it is not a bundle, or is incomplete")
    damaged = "was altered or truncated: copy the bundle again"
    try:
        metadata = json.loads(files[METADATA])
        if not str(metadata["format"]).startswith(FORMAT.rpartition("/")[0]):
            raise WeightsError(f"{path / METADATA} was not written by featherweight")
        if metadata["format"] != FORMAT:
            raise WeightsError(f"{path / METADATA} is of a newer version: update featherweight")
        if metadata["sha256"] != json_sha256(metadata):
            raise WeightsError(f"{path / METADATA} {damaged}")
        expected = {name: metadata["files"][name] for name in HASHED}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(f"{path / METADATA} {damaged}") from None
    for name, sha256 in file_hashes(files).items():
        if sha256 != expected[name]:
            raise WeightsError(f"{path / name} {damaged}")
    return files


def file_hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """Returns the SHA-256 of each file but the metadata."""
    return {name: hashlib.sha256(files[name]).hexdigest() for name in HASHED}


def json_sha256(value: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object without its own "sha256" key."""
    hashed = {name: item for name, item in value.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def _read_folder(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in _FILES if (path / name).is_file()}


def _read_zip(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        raise WeightsError(f"no bundle at {path}: give a folder or a zip file written by export")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                # Nothing is extracted to disk, but a file with such names is not a bundle.
                if PurePosixPath(name).name != name or "\\" in name or names.count(name) > 1:
                    raise WeightsError(f"{path} contains {name!r}: a bundle has five plain files")
                if archive.getinfo(name).file_size > _MAX_FILE_BYTES:
                    raise WeightsError(f"{path / name} is larger than a bundle can be")
            return {name: archive.read(name) for name in _FILES if name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        raise WeightsError(f"{path} is damaged or truncated: copy it again") from None


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a memory plan fits one shape, and batches have many
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
