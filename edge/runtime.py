"""A bundle -> answers, with numpy, tokenizers and onnxruntime, and nothing of this project.

    from edge.runtime import load

    model = load("bundle/")  # or bundle.zip
    model.predict(["i feel so happy today"])  # ["joy"]

A bundle is a folder or a zip file of five files: `model.onnx`, `tokenizer.json`, `labels.json`,
`golden.jsonl` (texts with the probabilities they must get) and `bundle.json`, which holds what
else there is to know, the hash of each of the others, and its own.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from featherweight.errors import DataError, UsageError, WeightsError, first_line

FORMAT = "featherweight-bundle/1"
FACTS = "bundle.json"
MODEL, TOKENIZER, LABELS, GOLDEN = "model.onnx", "tokenizer.json", "labels.json", "golden.jsonl"
HASHED = (MODEL, TOKENIZER, LABELS, GOLDEN)
TOLERANCE = 1e-3  # of a probability: processors round in their own ways

_UNKNOWN = np.int64(1).tobytes()  # what a text without any token is: <unk>
_ID_BYTES = len(_UNKNOWN)
_BATCH_TOKENS = 512  # larger batches were slower per text: their states leave the fastest cache
_WINDOW = 8_192  # texts sorted by length at a time, so that memory does not grow with their number
_MOST_PARTS, _LONGEST_PART = 65_536, 64  # that are remembered, and its characters
_LARGEST_FILE = 1_000_000_000  # bytes unpacked; a small zip file must not fill the memory

_OUTPUTS = ["logits"]

FloatArray = npt.NDArray[np.floating[Any]]


class Verified(NamedTuple):
    """What the golden texts showed.

    Attributes:
        texts: How many there are.
        largest: The largest difference of a probability.
    """

    texts: int
    largest: float


class _Parts(dict[str, bytes]):
    """What stands between two spaces -> its token ids, as the bytes of int64.

    Normalizer and pre-tokenizer never look beyond a space, so the ids of a text are those of its
    parts in a row; and since most parts come again, they are looked up and not computed. A part
    comes in once it was met, until 65,536 are known.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __missing__(self, part: str) -> bytes:
        # Half a surrogate pair is no character, and the library would refuse it.
        valid = part.encode(errors="replace").decode()
        ids = self._tokenizer.encode(valid, add_special_tokens=False).ids
        content = np.array(ids, np.int64).tobytes()
        if len(self) < _MOST_PARTS and len(part) <= _LONGEST_PART:
            self[part] = content
        return content


class Bundle:
    """A classifier that may be asked by any number of threads at once.

    Attributes:
        classes_: (C,) the label names; the index is the class id.
        facts: What `bundle.json` says.
    """

    def __init__(
        self, files: Mapping[str, bytes], facts: Mapping[str, Any], threads: int = 1
    ) -> None:
        """Makes ready what `read` returned.

        Args:
            files: Content by name.
            facts: What `bundle.json` says; only "temperature" is looked at.
            threads: CPU threads that one batch is computed with.

        Raises:
            WeightsError: A file is not what it should be.
        """
        self.facts = facts
        self._session = _session(files[MODEL], threads)
        try:
            self._labels = [str(label) for label in json.loads(files[LABELS])]
            tokenizer = Tokenizer.from_str(files[TOKENIZER].decode())
            self._longest = int((tokenizer.truncation or {})["max_length"]) * _ID_BYTES
            tokenizer.no_truncation()  # of parts: what is cut is the whole
            self._temperature = float(facts["temperature"])
            self._golden = [json.loads(line) for line in files.get(GOLDEN, b"").splitlines()]
        except Exception as error:  # tokenizers raises no narrower kind
            reason = first_line(error)
            raise WeightsError(f"does not fit this version ({reason})") from None
        num_labels = self._session.get_outputs()[0].shape[1]
        if num_labels != len(self._labels):
            raise WeightsError(f"{LABELS} has {len(self._labels)} labels, {MODEL} {num_labels}")
        self.classes_ = np.array(self._labels)
        self._parts = _Parts(tokenizer)

    def predict(self, texts: Sequence[str], min_confidence: float = 0.0) -> list[str]:
        """Returns the most probable label of each of N texts.

        Args:
            texts: The texts.
            min_confidence: Probability below which the answer is "".
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

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Returns calibrated probabilities (N, C), columns in the order of `classes_`."""
        return _softmax(self.logits(texts))

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Returns the logits (N, C) of N texts, divided by the temperature, as float32.

        Raises:
            UsageError: It is one string, not several.
            DataError: An element is no string.
        """
        if isinstance(texts, str):
            raise UsageError("give a list of texts, not one string")
        if len(texts) <= _WINDOW:
            return self.forward(self.encode(texts))
        starts = range(0, len(texts), _WINDOW)
        return np.concatenate([self.logits(texts[start : start + _WINDOW]) for start in starts])

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Returns the token ids of each text, as the bytes of int64, cut at the maximum length.

        Raises:
            DataError: An element is no string.
        """
        ids, longest = self._parts.__getitem__, self._longest
        try:
            return [b"".join(map(ids, text.split(" ")))[:longest] or _UNKNOWN for text in texts]
        except AttributeError:
            (kind, *_) = (type(text).__name__ for text in texts if not isinstance(text, str))
            raise DataError(f"a text is of type {kind}: give strings") from None

    def is_cut(self, text: str) -> bool:
        """Says whether `encode` loses tokens of a text."""
        return sum(len(self._parts[part]) for part in text.split(" ")) > self._longest

    def forward(self, rows: Sequence[bytes]) -> FloatArray:
        """Returns the logits (N, C) of what `encode` returned, divided by the temperature."""
        if len(rows) == 1:  # nothing to sort and to gather
            return self._run(rows)
        logits = np.empty((len(rows), len(self._labels)), np.float32)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        while order:
            # From the longest on, which says how many texts are as many tokens.
            size = max(1, _BATCH_TOKENS * _ID_BYTES // len(rows[order[-1]]))
            batch = order[-size:]
            del order[-size:]
            logits[batch] = self._run([rows[row] for row in batch])
        return logits

    def _run(self, rows: Sequence[bytes]) -> FloatArray:
        """Computes one batch."""
        width = max(map(len, rows))
        padded = b"".join([row.ljust(width, b"\0") for row in rows])  # <pad> is 0
        inputs = {
            "input_ids": np.ndarray((len(rows), width // _ID_BYTES), np.int64, padded),
            "lengths": np.array([len(row) // _ID_BYTES for row in rows], np.int32),
        }
        logits: FloatArray = self._session.run(_OUTPUTS, inputs)[0]
        return logits / self._temperature

    def verify(self) -> Verified:
        """Answers the golden texts.

        Raises:
            WeightsError: There are none, or one gets other probabilities than it must.
        """
        if not self._golden:
            raise WeightsError(f"{GOLDEN} has no texts: export it again")
        expected = np.array([row["probabilities"] for row in self._golden])
        found = self.predict_proba([row["text"] for row in self._golden])
        differences = np.abs(found - expected).max(axis=1)
        worst = int(differences.argmax())
        if not differences[worst] <= TOLERANCE:
            raise WeightsError(
                f"line {worst + 1} of {GOLDEN} is answered otherwise than when it was exported: "
                f"a probability differs by {differences[worst]:.2g}, {TOLERANCE:g} is allowed"
            )
        return Verified(len(expected), float(differences[worst]))


def load(path: str | Path, threads: int = 1) -> Bundle:
    """Loads a bundle.

    Args:
        path: A folder or a zip file.
        threads: CPU threads that one batch is computed with.

    Raises:
        WeightsError: There is none, it is truncated, altered or foreign.
    """
    path = Path(path)
    files = read(path)
    try:
        return Bundle(files, json.loads(files[FACTS]), threads)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def read(path: Path) -> dict[str, bytes]:
    """Returns the files of a bundle by their names, each of the hash that it must have.

    Raises:
        WeightsError: A file is missing, truncated, altered or foreign; the message names it.
    """
    names = (FACTS, *HASHED)
    files = _folder(path, names) if path.is_dir() else _zip(path, names)
    damaged = f"{path / FACTS} was altered or truncated: copy the bundle again"
    try:
        facts = json.loads(files[FACTS])
        if not str(facts["format"]).startswith(FORMAT.rpartition("/")[0]):
            raise WeightsError(f"{path / FACTS} is of another program: give a bundle")
        if facts["format"] != FORMAT:
            raise WeightsError(f"{path / FACTS} is of a newer version: update featherweight")
        if facts["sha256"] != facts_hash(facts):
            raise WeightsError(damaged)
        hashes = {name: facts["files"][name] for name in HASHED}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(damaged) from None
    for name, sha256 in hashes.items():
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise WeightsError(f"{path / name} was altered or truncated: copy the bundle again")
    return files


def facts_hash(facts: Mapping[str, Any]) -> str:
    """Returns the hash that `bundle.json` has of itself: of all but this hash, in one form."""
    rest = {name: value for name, value in facts.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _folder(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    for name in names:
        if not (path / name).is_file():
            raise WeightsError(f"{path} has no {name}: it is no bundle, or a part of one")
    return {name: (path / name).read_bytes() for name in names}


def _zip(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    if not path.is_file():
        raise WeightsError(f"no bundle at {path}: give a folder or a zip file that export wrote")
    name = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry.filename for entry in archive.infolist()]
            # Nothing is unpacked to the disk; yet whoever names such files is up to no good.
            strange = [it for it in entries if PurePosixPath(it).name != it or "\\" in it]
            twice = [it for it in entries if entries.count(it) > 1]
            for bad in (*strange, *twice):
                raise WeightsError(f"{path} holds {bad!r}: a bundle has five files, each once")
            for name in names:
                if name not in entries:
                    raise WeightsError(f"{path} has no {name}: it is no bundle, or a part of one")
                if archive.getinfo(name).file_size > _LARGEST_FILE:
                    raise WeightsError(f"{path / name} is larger than a bundle can be")
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        raise WeightsError(f"{path}: {name} is damaged or truncated: copy it again") from None


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Makes ready to compute a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a plan of memory fits one shape, and batches have many
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its kinds of errors have nothing in common
        reason = first_line(error)
        raise WeightsError(f"{MODEL} is not a model for this onnxruntime ({reason})") from None


def _softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
