"""weights -> Classifier: reads the header of the file and asks the package that wrote it."""

import logging
from pathlib import Path
from typing import Any

from featherweight.classifier import Classifier
from featherweight.errors import UsageError, WeightsError, requires
from featherweight.run import COMPRESSION, CONFIG, MODEL, ONNX, TRANSFORMER, Run, newest_run
from featherweight.weights import FEATURES_FORMAT, LSTM_FORMAT, is_bundle, read_metadata

logger = logging.getLogger("featherweight")

PRETRAINED = "pretrained"  # as weights: the bundle that ships with the package


def load(weights: str | Path, device: str = "auto") -> Classifier:
    """Loads a trained classifier.

    Args:
        weights: A run directory, one portable `.safetensors` file, a bundle (folder or `.zip`),
            a folder that `save_pretrained` of the `transformers` library wrote, or "pretrained".
        device: "auto", "cpu" or "cuda"; what was exported to ONNX stays on the CPU.

    Raises:
        WeightsError: There is nothing there, or it is truncated, altered or foreign.
        UsageError: CUDA is asked for and there is none.
    """
    path = resolve_weights(weights)
    if is_bundle(path):
        from edge.classifier import BundleClassifier

        return BundleClassifier.load(path)
    if path.is_dir():
        run = Run(path)
        if run.cut_off:
            raise WeightsError(f"{path} was cut off in training: finish it with --resume")
        if run.exported:
            return _load_onnx(run.file(ONNX))
        if run.file(TRANSFORMER).is_dir():
            return _load_transformer(run.file(TRANSFORMER), device, _name(run))
        if _of_transformers(run):
            return _load_transformer(path, device, path.name)
        path = run.file(MODEL)
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: give a run directory or a .safetensors file")
    written_as = read_metadata(path).get("format")
    if written_as == LSTM_FORMAT:
        from lstm.classifier import TextClassifier

        return TextClassifier.load(path, device)
    if written_as == FEATURES_FORMAT:
        return _load_features(path, device)
    raise WeightsError(f"{path} was not written by featherweight (or by a newer version)")


def compression_of(weights: Path) -> dict[str, Any]:
    """Returns the `compression.json` of a variant, and an empty dict for other weights."""
    run = Run(weights)
    return run.read_json(COMPRESSION) if run.file(COMPRESSION).is_file() else {}


def resolve_weights(weights: str | Path) -> Path:
    """Returns where weights are; "pretrained" names the bundle that ships with the package."""
    if str(weights) != PRETRAINED:
        return Path(weights)
    from edge.pretrained import PATH

    return PATH


def newest_or_pretrained(output_dir: Path) -> Path:
    """Returns the newest finished run, or where there is none the bundle that ships."""
    try:
        return newest_run(output_dir).path
    except UsageError:
        logger.info("no run in %s: the bundle that ships with the package answers", output_dir)
        return resolve_weights(PRETRAINED)


def _of_transformers(folder: Run) -> bool:
    """Says whether a folder is in the format of the `transformers` library."""
    config = folder.read_json(CONFIG) if folder.file(CONFIG).is_file() else None
    return isinstance(config, dict) and "model_type" in config


def _name(run: Run) -> str:
    """Returns what tables call a transformer's run: its folder, or its origin and the method."""
    if not run.file(COMPRESSION).is_file():
        return run.path.name
    facts = run.read_json(COMPRESSION)
    try:
        return f"{facts['origin']['name']} ({facts['method']})"
    except (KeyError, TypeError):
        raise WeightsError(f"{run.file(COMPRESSION)} does not name its origin") from None


def _load_transformer(folder: Path, device: str, name: str) -> Classifier:
    with requires("transformers"):
        from transformer_eval.classifier import TransformerClassifier

    return TransformerClassifier.load(folder, device, name)


def _load_onnx(folder: Path) -> Classifier:
    with requires("transformers"):
        from compress.onnx.classifier import OnnxClassifier

        return OnnxClassifier.load(folder)


def _load_features(path: Path, device: str) -> Classifier:
    with requires("transformers"):
        from transformer_eval.features import FrozenFeatures

    return FrozenFeatures.load(path, device)
