"""`export`: writes the bundle of an LSTM run, which `edge.runtime` loads without PyTorch."""

import json
import logging
import random
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from compress.onnx.conversion import export as export_onnx
from compress.origin import Origin
from edge.bundle_files import (
    FORMAT,
    GOLDEN,
    LABELS,
    METADATA,
    MODEL,
    TOKENIZER,
    check_size,
    file_hashes,
    json_sha256,
    read,
)
from edge.config import ExportConfig
from edge.packing import packed
from edge.runtime import Bundle
from featherweight.classifier import FloatArray, IntArray, softmax
from featherweight.disk.atomic import atomic_directory, atomic_open
from featherweight.errors import UsageError, WeightsError
from featherweight.loading import compression_of
from featherweight.quality.evaluation import Evaluation
from featherweight.run import CONFIG, ONNX, ONNX_MODEL, Run, newest_run, without_folders
from lstm.classifier import TextClassifier

logger = logging.getLogger("featherweight")

MIN_AGREEMENT = 0.995  # share of unchanged validation labels below which export warns
# Unusual inputs for tokenizers, batches and files.
EDGE_CASES = (
    "", " ", "\t\n", "a", "?!", "zzzzzzzz qqqqqq", "so happy " * 200, "\x00\x1c\x7f",
    "I'm SOOOOO happy!!! 😂😂", "👩\u200d👩\u200d👧 👍🏽 🇫🇷 ❤\ufe0f",
    "see https://example.org/a?b=c and www.example.org", "@ann told @bob_2: mail me@home",
    "<pad> <unk> <url> <user>", "naïve café, e\u0301te\u0301", "ﬁne ①②③ ＦＵＬＬ",
    "zero\u200bwidth\u00a0space\u2028line", "ich bin so glücklich", "я так счастлив",
    "我今天很开心", "أنا سعيد جدا",
)  # fmt: skip

_RANDOM_TEXTS, _MAX_WORDS = 44, 40  # golden texts besides the edge cases, words of such a text
_TEMPERATURES = np.log(0.05), np.log(20.0)  # bounds of the logarithm
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal bundles are equal files
_CC0 = "CC0 1.0 (the bundled corpus)"
_SCORES = ("accuracy", "macro_f1")
_OMITTED_FLAGS = {"output_dir", "name", "overwrite", "resume", "device", "weights"}


def export(config: ExportConfig) -> Path:
    """Writes the bundle of a run; an error leaves no partial bundle.

    Returns:
        The folder or zip file.

    Raises:
        UsageError: The run is not an LSTM run, or the output exists.
        WeightsError: The run cannot be loaded, or its bundle would be too large.
        DataError: The run's data, which calibration needs, is not available.
        FeatherweightError: The graph gives different results from the run.
    """
    run = Run(config.weights) if config.weights else newest_run(config.output_dir)
    if not run.file(CONFIG).is_file():
        raise UsageError(f"{run.path} is not a run directory: export needs the training flags")
    path = config.output_path or run.file("bundle")
    _refuse_existing(path, config.overwrite)
    origin = Origin.load(run, "cpu")
    if not isinstance(origin.classifier, TextClassifier):
        raise UsageError(
            f"{run.path} is not an LSTM in PyTorch: export an LSTM run or an int8 variant of it"
        )
    files = _bundle_files(origin, origin.classifier, config.license_note)
    for name, content in files.items():
        check_size(path, name, len(content))
    _write(path, files)
    size = sum(map(len, files.values())) if path.is_dir() else path.stat().st_size
    logger.info("%s bytes", f"{size:,}")
    return path


def _bundle_files(
    origin: Origin, classifier: TextClassifier, license_note: str
) -> dict[str, bytes]:
    """Returns the content of the bundle's files by name."""
    tokenizer = json.loads(classifier.tokenizer.to_str())
    files = {
        MODEL: graph_of(classifier),
        TOKENIZER: json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode(),
        LABELS: json.dumps(classifier.labels, ensure_ascii=False).encode(),
    }
    uncalibrated = Bundle(files, {"temperature": 1.0})
    texts = origin.dataset.validation.texts
    logits = uncalibrated.logits(texts)
    # Rounded here, so that the golden probabilities are those of the value in the file.
    temperature = round(fit_temperature(logits, origin.dataset.validation.labels), 6)
    vocabulary = sorted(tokenizer["model"]["vocab"])
    files[GOLDEN] = _golden_lines(uncalibrated, temperature, vocabulary).encode()
    bundled = origin.run.read_json(CONFIG).get("data") == "bundled"
    normalization = {name: tokenizer[name] for name in ("normalizer", "pre_tokenizer")}
    metadata = {
        "format": FORMAT,
        "name": classifier.name,
        "files": file_hashes(files),
        "normaliser": {"in": TOKENIZER, "sha256": json_sha256(normalization)},
        "temperature": temperature,
        "graph": {
            "storage": "int8",
            "dtype": "fp32",  # of the computation
            "same_labels": _agreement(logits, classifier.logits(texts)),
        },
        "num_parameters": classifier.num_parameters(),
        "training": _training(origin.run),
        "data": origin.dataset.identity(),
        "validation": _validation_scores(origin, classifier, softmax(logits / temperature)),
        "license_note": license_note or (_CC0 if bundled else None),
    }
    metadata = json.loads(json.dumps(metadata))  # keys become strings, as `read` will hash them
    metadata["sha256"] = json_sha256(metadata)
    files[METADATA] = (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def graph_of(classifier: TextClassifier) -> bytes:
    """Returns the serialized graph: int8 storage, fp32 computation, the same for equal weights."""
    with TemporaryDirectory() as folder:
        export_onnx(classifier, None, "fp32", Path(folder))
        fp32 = onnx.load(Path(folder) / ONNX / ONNX_MODEL)
    return packed(fp32).SerializeToString(deterministic=True)


def fit_temperature(logits: FloatArray, targets: IntArray) -> float:
    """Returns the temperature that minimizes the mean cross-entropy, in [0.05, 20].

    Logits divided by it give calibrated probabilities; their order stays the same.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, section 4.2.

    Args:
        logits: (N, C), of texts that were not trained on.
        targets: (N,) true class ids.
    """
    rows = np.arange(len(targets))

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, targets].mean())

    # Over the logarithm, in which 1/2 and 2 are equally far from 1.
    minimum = minimize_scalar(cross_entropy, bounds=_TEMPERATURES, method="bounded")
    return float(np.exp(minimum.x))


def _golden_lines(uncalibrated: Bundle, temperature: float, vocabulary: Sequence[str]) -> str:
    """Returns `golden.jsonl`: one object per line, for the edge cases and random word sequences.

    None of them is a text of the data, which may be private.
    """
    generator = random.Random(0)
    sequences = [
        " ".join(generator.choices(vocabulary, k=generator.randint(1, _MAX_WORDS)))
        for _ in range(_RANDOM_TEXTS)
    ]
    texts = [*EDGE_CASES, *sequences]
    probabilities = softmax(uncalibrated.logits(texts) / temperature).round(6).tolist()
    lines = [
        json.dumps({"text": text, "probabilities": row})
        for text, row in zip(texts, probabilities, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _agreement(logits: FloatArray, reference: FloatArray) -> float | None:
    """Returns the share of rows (N, C) with the same label in both, or None if N is 0."""
    if not len(logits):
        return None
    share = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
    if share < MIN_AGREEMENT:
        logger.warning("int8 storage changes the label of %.1f%% of validation", 100 * (1 - share))
    return share


def _validation_scores(
    origin: Origin, classifier: TextClassifier, probabilities: FloatArray
) -> dict[str, Any]:
    """Returns the bundle's scores on validation, with 95 % intervals where they exist."""
    validation = origin.dataset.validation
    evaluation = Evaluation(
        model=classifier.name, data=origin.dataset.name, split=validation.name,
        labels=classifier.labels, targets=validation.labels, probabilities=probabilities,
        parameters=classifier.num_parameters(), size_bytes=0,
    )  # fmt: skip
    scores = {
        name: {"value": evaluation.scores[name], "interval": evaluation.intervals[name]}
        for name in _SCORES
    }
    return {"n": len(validation), **scores, "ece": evaluation.ece}


def _training(run: Run) -> dict[str, Any]:
    """Returns the flags a run was trained with and, for a variant, the compression."""
    training = {"flags": _public_flags(run.read_json(CONFIG))}
    compression = compression_of(run.path)
    if not compression:
        return training
    return training | {
        "compression": {
            "method": compression.get("method"),
            "origin": compression.get("origin"),
            "flags": _public_flags(compression.get("flags", {})),
        }
    }


def _public_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags that influence a training, absolute paths reduced to their last part."""
    return {
        name: without_folders(value) for name, value in flags.items() if name not in _OMITTED_FLAGS
    }


def _refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises UsageError if the output exists and is not a bundle that may be replaced."""
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"--output_path {path} exists: give --overwrite to replace it")
    try:
        read(path)
    except WeightsError:
        raise UsageError(f"--output_path {path} is not a bundle: not overwritten") from None


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with atomic_open(path, "wb") as output, zipfile.ZipFile(output, "w") as archive:
            for name, content in files.items():
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
        return
    with atomic_directory(path) as folder:
        for name, content in files.items():
            Run(folder).write_bytes(name, content)
