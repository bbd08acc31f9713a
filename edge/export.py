"""A run of an LSTM -> a bundle: what `edge.runtime` answers with where there is no PyTorch."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from compress.onnx.conversion import export as export_onnx
from compress.origin import Origin
from edge.calibration import fit_temperature
from edge.config import ExportConfig
from edge.golden import golden_lines
from edge.packing import packed
from edge.runtime import (
    FACTS,
    FORMAT,
    GOLDEN,
    HASHED,
    LABELS,
    MODEL,
    TOKENIZER,
    Bundle,
    facts_hash,
    read,
)
from featherweight.classifier import FloatArray, softmax
from featherweight.errors import UsageError, WeightsError
from featherweight.quality.evaluation import Evaluation
from featherweight.run import (
    COMPRESSION,
    CONFIG,
    ONNX,
    ONNX_MODEL,
    Run,
    atomic_directory,
    atomic_open,
    newest_run,
    without_folders,
)
from lstm.classifier import TextClassifier

logger = logging.getLogger("featherweight")

MIN_AGREEMENT = 0.995  # share of validation labels below which storing in int8 is warned of
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal bundles are equal files
_SCORES = ("accuracy", "macro_f1")
_NOT_TRAINING = {"output_dir", "name", "overwrite", "resume", "device", "weights"}
_BUNDLED = "CC0 1.0 (the bundled corpus)"


def export(config: ExportConfig) -> Path:
    """Writes the bundle of a run, whole or not at all.

    Returns:
        The folder or zip file.

    Raises:
        UsageError: It is no run of an LSTM, or the place is taken.
        WeightsError: The run cannot be loaded.
        DataError: The run's data, on which confidence is calibrated, has gone.
        FeatherweightError: The graph gives different results from the run.
    """
    run = Run(config.weights) if config.weights else newest_run(config.output_dir)
    if not run.file(CONFIG).is_file():
        raise UsageError(f"{run.path} is no run directory: a bundle says how it was trained")
    path = config.output_path or run.file("bundle")
    _refuse_existing(path, config.overwrite)
    origin = Origin.load(run, "cpu")
    if not isinstance(origin.classifier, TextClassifier):
        raise UsageError(
            f"{run.path} is no LSTM in PyTorch: export an LSTM's run, or its variant in int8"
        )
    files = contents(origin, origin.classifier, config.license_note)
    _write(path, files)
    size = sum(map(len, files.values())) if path.is_dir() else path.stat().st_size
    logger.info("%s bytes", f"{size:,}")
    return path


def contents(origin: Origin, classifier: TextClassifier, license_note: str) -> dict[str, bytes]:
    """Returns the files of a bundle by their names.

    Args:
        origin: The run and its data.
        classifier: Its model.
        license_note: Terms of the data; empty: only those of the bundled corpus are known.
    """
    tokenizer = json.loads(classifier.tokenizer.to_str())
    files = {
        MODEL: _graph(classifier),
        TOKENIZER: json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode(),
        LABELS: json.dumps(classifier.labels, ensure_ascii=False).encode(),
    }
    validation = origin.dataset.validation
    logits = Bundle(files, {"temperature": 1.0}).logits(validation.texts)
    # As it is written, so that what is expected was computed with what will be read.
    temperature = round(fit_temperature(logits, validation.labels), 6)
    bundle = Bundle(files, {"temperature": temperature})
    files[GOLDEN] = golden_lines(bundle, sorted(tokenizer["model"]["vocab"])).encode()
    facts = {
        "format": FORMAT,
        "name": classifier.name,
        "files": {it: hashlib.sha256(files[it]).hexdigest() for it in HASHED},
        "normaliser": {
            "in": TOKENIZER,
            "sha256": _hash_of({it: tokenizer[it] for it in ("normalizer", "pre_tokenizer")}),
        },
        "temperature": temperature,
        "graph": {
            "storage": "int8",
            "dtype": "fp32",  # that it computes in
            "same_labels": _agreement(logits, classifier.logits(validation.texts)),
        },
        "num_parameters": classifier.num_parameters(),
        "training": _training(origin.run),
        "data": origin.dataset.identity(),
        "validation": _metrics(origin, classifier, bundle),
        "license_note": license_note or (_BUNDLED if _is_bundled(origin) else None),
    }
    facts = json.loads(json.dumps(facts))  # whose keys are strings, as those that will be read
    facts["sha256"] = facts_hash(facts)
    files[FACTS] = (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def _graph(classifier: TextClassifier) -> bytes:
    """Returns the serialized graph: stored in int8, computed in fp32, the same at every export.

    Raises:
        FeatherweightError: The graph gives different results from the network.
    """
    with TemporaryDirectory() as folder:
        export_onnx(classifier, None, "fp32", Path(folder))
        fp32 = onnx.load(Path(folder) / ONNX / ONNX_MODEL)
    return packed(fp32).SerializeToString(deterministic=True)


def _agreement(logits: FloatArray, original: FloatArray) -> float | None:
    """Returns the share of the N validation texts that keep the label of the run.

    Args:
        logits: (N, C) of the bundle.
        original: (N, C) of the run.
    """
    if not len(logits):
        return None
    share = float((logits.argmax(axis=1) == original.argmax(axis=1)).mean())
    if share < MIN_AGREEMENT:
        logger.warning("int8 storage changes the label of %.1f%% of validation", 100 * (1 - share))
    return share


def _metrics(origin: Origin, classifier: TextClassifier, bundle: Bundle) -> dict[str, Any]:
    """Returns what the bundle reaches on validation, with 95 % intervals where there are any."""
    validation = origin.dataset.validation
    evaluation = Evaluation(
        model=classifier.name, data=origin.dataset.name, split=validation.name,
        labels=classifier.labels, targets=validation.labels,
        probabilities=softmax(bundle.logits(validation.texts)),
        parameters=classifier.num_parameters(), size_bytes=0,
    )  # fmt: skip
    return {
        "n": len(validation),
        **{it: {"value": evaluation.scores[it], "interval": evaluation.intervals[it]}
           for it in _SCORES},
        "ece": evaluation.ece,
    }  # fmt: skip


def _training(run: Run) -> dict[str, Any]:
    """Returns the flags of a run, and what was done to it since."""
    training = {"flags": _told(run.read_json(CONFIG))}
    if not run.file(COMPRESSION).is_file():
        return training
    compression = run.read_json(COMPRESSION)
    facts = {it: compression.get(it) for it in ("method", "origin")}
    return training | {"compression": {**facts, "flags": _told(compression.get("flags", {}))}}


def _told(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags that a training follows from, without paths of this machine."""
    return {
        name: without_folders(value) for name, value in flags.items() if name not in _NOT_TRAINING
    }


def _is_bundled(origin: Origin) -> bool:
    return bool(origin.run.read_json(CONFIG).get("data") == "bundled")


def _hash_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuses a place that is taken.

    Raises:
        UsageError: A bundle is there and is not to be replaced, or something else is.
    """
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"--output_path {path} is there already: give --overwrite to replace it")
    try:
        read(path)
    except WeightsError:
        raise UsageError(f"--output_path {path} is no bundle: not overwritten") from None


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
