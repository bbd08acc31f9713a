"""Loads classifiers: chooses the class by the format of the weights."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featherweight.classifier import Classifier, FloatArray
from featherweight.errors import UsageError, WeightsError, requires
from featherweight.run import COMPRESSION, CONFIG, MODEL, ONNX, TRANSFORMER, Run, newest_run
from featherweight.weights import FEATURES_FORMAT, LSTM_FORMAT, is_bundle, read_metadata

logger = logging.getLogger("featherweight")

PRETRAINED = "pretrained"  # names the bundle included in the package
_WORD_TOKENS = 32  # subwords of a word, with special tokens; longer ones are no words
_WORDS = 128  # that an encoder reads at once


def load(weights: str | Path, device: str = "auto") -> Classifier:
    """Loads a trained classifier.

    Args:
        weights: A run directory, a portable `.safetensors` file, a bundle (folder or `.zip`), a
            folder written by `save_pretrained` of the `transformers` library, or "pretrained".
        device: "auto", "cpu" or "cuda"; ONNX models and bundles always use the CPU.

    Raises:
        WeightsError: The weights are missing, truncated, altered or of an unknown format.
        UsageError: "cuda", and no CUDA device is available.
    """
    path = resolve_weights(weights)
    if is_bundle(path):
        from edge.classifier import BundleClassifier

        return BundleClassifier.load(path)
    return _load_directory(Run(path), device) if path.is_dir() else _load_file(path, device)


def load_with_cuda_graphs(weights: str | Path) -> Classifier:
    """Loads an LSTM that replays CUDA graphs instead of launching each kernel.

    Raises:
        WeightsError: The weights cannot be loaded.
        UsageError: They are not those of an LSTM, or no CUDA device is available.
    """
    from lstm.cuda_graphs import graphed

    return graphed(load(weights, "cuda"))


def encode_words(encoder: str, words: Sequence[str], device: str, cache_dir: Path) -> FloatArray:
    """Returns the mean state (N, H) of a sentence encoder for each of N words alone.

    Args:
        encoder: Registry name, Hub id or folder; named by the flag --vectors.
        words: The words.
        device: "cpu" or "cuda".
        cache_dir: Folder of cached states.

    Raises:
        UsageError: There is no encoder with this name.
        WeightsError: The encoder is not available.
    """
    with requires("transformers"):
        from transformer_eval.frozen_encoder import Encoder
        from transformer_eval.model_files import fetch

    files = fetch(encoder, "--vectors")
    return Encoder(files, "mean", _WORD_TOKENS, device).embed_cached(words, _WORDS, cache_dir)


def _load_directory(run: Run, device: str) -> Classifier:
    if run.cut_off:
        raise WeightsError(f"{run.path} was cut off in training: finish it with --resume")
    if run.exported:
        with requires("transformers"):
            from compress.onnx.classifier import OnnxClassifier

            return OnnxClassifier.load(run.file(ONNX))
    if run.file(TRANSFORMER).is_dir():
        return _load_transformer(run.file(TRANSFORMER), device, _name(run))
    if _is_transformers_folder(run):
        return _load_transformer(run.path, device, run.path.name)
    return _load_file(run.file(MODEL), device)


def _load_file(path: Path, device: str) -> Classifier:
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: give a run directory or a .safetensors file")
    weights_format = read_metadata(path).get("format")
    if weights_format == LSTM_FORMAT:
        from lstm.classifier import TextClassifier

        return TextClassifier.load(path, device)
    if weights_format == FEATURES_FORMAT:
        with requires("transformers"):
            from transformer_eval.features import FrozenFeatures

            return FrozenFeatures.load(path, device)
    raise WeightsError(f"{path} was not written by featherweight (or by a newer version)")


def compression_of(weights: Path) -> dict[str, Any]:
    """Returns the `compression.json` of a variant, and an empty dict for other weights."""
    run = Run(weights)
    return run.read_json(COMPRESSION) if run.file(COMPRESSION).is_file() else {}


def resolve_weights(weights: str | Path) -> Path:
    """Returns the path of weights, with "pretrained" replaced by the bundle of the package."""
    if str(weights) != PRETRAINED:
        return Path(weights)
    from edge.pretrained import PATH

    return PATH


def newest_or_pretrained(output_dir: Path) -> Path:
    """Returns the newest finished run, or the bundle of the package, and logs which one."""
    try:
        return newest_run(output_dir).path
    except UsageError:  # there is no run
        logger.info("weights: the pretrained bundle (six emotions of tweets)")
        return resolve_weights(PRETRAINED)


def _is_transformers_folder(folder: Run) -> bool:
    """Returns whether the `transformers` library wrote a folder."""
    config = folder.read_json(CONFIG) if folder.file(CONFIG).is_file() else None
    return isinstance(config, dict) and "model_type" in config


def _name(run: Run) -> str:
    """Returns the name of a transformer run in tables, e.g. "mine" or "mine (int8)"."""
    facts = compression_of(run.path)
    if not facts:
        return run.path.name
    try:
        return f"{facts['origin']['name']} ({facts['method']})"
    except (KeyError, TypeError):
        raise WeightsError(f"{run.file(COMPRESSION)} does not name the original run") from None


def _load_transformer(folder: Path, device: str, name: str) -> Classifier:
    with requires("transformers"):
        from transformer_eval.classifier import TransformerClassifier

    return TransformerClassifier.load(folder, device, name)
