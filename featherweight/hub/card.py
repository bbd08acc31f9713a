"""The README.md of a repository on the Hub: a run's model card, with metadata and Hub usage."""

from collections.abc import Iterable
from typing import Any

from featherweight.errors import WeightsError
from featherweight.reports.markdown import code
from featherweight.reports.numbers import with_interval
from featherweight.run import (
    CONFIG,
    CONFUSION,
    EVALUATION,
    MODEL,
    ONNX,
    ONNX_FACTS,
    TRANSFORMER,
    Run,
    of_split,
)
from featherweight.weights import read_metadata

TEST_EVALUATION = of_split(EVALUATION, "test")
PICTURES = (CONFUSION, "training_curves.png")
ADAPTER = "adapter"  # folder of adapters next to an unchanged base model
_QUANTIZERS = ("bitsandbytes", "torchao")  # packages, as named by quant_method of config.json
_EXAMPLE = '"i feel so happy today"'
_PREDICT = f"print(classifier.predict([{_EXAMPLE}]))\n"


def _use_section(code: str, note: str = "") -> str:
    return f"## Use\n\n{note}```python\n{code}```\n"


# The part of a run's model card that `hub_card` exchanges.
LOCAL_USE = _use_section(f'from featherweight import load\n\nclassifier = load(".")\n{_PREDICT}')


def hub_card(run: Run, repo_id: str, license: str, files: Iterable[str]) -> str:
    """Returns a run's model card with the metadata that the Hub reads.

    Args:
        run: A finished run, or a variant.
        repo_id: The target "owner/name"; the card shows how to load the model from there.
        license: Identifier such as "mit", or "".
        files: Names of the other files in the repository.

    Raises:
        WeightsError: The run's card or evaluation is missing or damaged.
    """
    try:
        card = run.file("README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise WeightsError(f"{run.path} has no readable README.md: train again") from None
    unpublished = {"data.json", *PICTURES} - set(files)
    lines = [line for line in card.splitlines() if not any(name in line for name in unpublished)]
    card = "\n".join(lines).rstrip() + "\n"
    use = f"{_test_section(run)}{_use(run, repo_id)}"
    card = card.replace(LOCAL_USE, use) if LOCAL_USE in card else f"{card}\n{use}"
    return f"---\n{_metadata(run, license).to_yaml()}\n---\n\n{card}"


def _metadata(run: Run, license: str) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    metrics = {"accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro F1")}
    tested = [run.read_json(TEST_EVALUATION)] if run.file(TEST_EVALUATION).is_file() else []
    evaluations = [run.read_json(EVALUATION), *tested]
    try:
        name = evaluations[0]["model"]
        results = [
            EvalResult(
                task_type="text-classification",
                task_name="Text Classification",
                dataset_type=evaluation["data"],
                dataset_name=evaluation["data"],
                dataset_split=evaluation["split"],
                dataset_args={"n": evaluation["n"]},
                metric_type=metric,
                metric_name=f"{title} ({evaluation['split']}, n = {evaluation['n']})",
                metric_value=evaluation[score],
            )
            for evaluation in evaluations
            for score, (metric, title) in metrics.items()
        ]
    except (KeyError, TypeError):
        raise WeightsError(
            f"{run.file(EVALUATION)} is damaged: train again, or restore the file"
        ) from None
    is_transformer = run.file(TRANSFORMER).is_dir()
    in_pipeline = is_transformer and not _pipeline_obstacle(run)
    kinds = ["transformer" if is_transformer else "lstm"]
    if run.exported:
        kinds = [str(Run(run.file(ONNX)).read_json(ONNX_FACTS).get("kind")), "onnx"]
    return ModelCardData(
        license=license or None,
        library_name="transformers" if in_pipeline else "featherweight",
        pipeline_tag="text-classification",
        tags=["featherweight", *kinds],
        model_name=name,
        eval_results=results,
    )


def _test_section(run: Run) -> str:
    """Returns the scores on the test split, if `test` has evaluated the run on it."""
    if not run.file(TEST_EVALUATION).is_file():
        return ""
    tested = run.read_json(TEST_EVALUATION)
    try:
        scores = [
            f"{title} {with_interval(tested[score], tested['intervals'][score])}"
            for score, title in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"))
        ]
        facts = f"Data {code(tested['data'])}, test split, n = {tested['n']:,}, 95 % bootstrap"
    except (KeyError, TypeError, ValueError):
        raise WeightsError(
            f"{run.file(TEST_EVALUATION)} is damaged: run test to write it again"
        ) from None
    return f"## Test\n\n{facts} intervals: {', '.join(scores)}.\n\n"


def _pipeline_obstacle(run: Run) -> str:
    """Returns why the `pipeline` of transformers cannot run a model, or "" if it can."""
    if run.exported:
        return "is stored as an ONNX graph, which runs on the CPU with onnxruntime"
    folder = run.file(TRANSFORMER)
    if (folder / ADAPTER).is_dir():
        return "consists of a 4-bit base model and separate adapters"
    # The name of the format as text: the module that writes it imports PyTorch.
    if read_metadata(folder / MODEL).get("format", "").startswith("featherweight-sparse/"):
        return "has weights that are stored without their zeros"
    return ""


def _use(run: Run, repo_id: str) -> str:
    """Returns the section with a program that loads the model from the Hub and calls it."""
    if not run.exported and not run.file(TRANSFORMER).is_dir():
        return _featherweight_use(f'hf_hub_download("{repo_id}", "{MODEL}")')
    obstacle = _pipeline_obstacle(run)
    if obstacle:
        note = f"This model {obstacle}: use featherweight, `pipeline` cannot read it.\n\n"
        return _featherweight_use(f'snapshot_download("{repo_id}")', note)
    config = Run(run.file(TRANSFORMER)).read_json(CONFIG)
    normalizer = config.get("text_normaliser")
    text, imported = _EXAMPLE, ""
    if normalizer:
        text = f'NORMALIZERS["{normalizer}"]({text})'
        imported = "from transformer_eval.normalization import NORMALIZERS\n"
    method = (config.get("quantization_config") or {}).get("quant_method")
    quantized = method in _QUANTIZERS
    note = f"The weights are quantized: `pip install {method}`.\n\n" if quantized else ""
    return _use_section(
        f"{imported}from transformers import pipeline\n\n"
        f'classifier = pipeline("text-classification", model="{repo_id}")\n'
        f"print(classifier({text}))\n",
        note,
    )


def _featherweight_use(download: str, note: str = "") -> str:
    function = download.partition("(")[0]
    return _use_section(
        f"from featherweight import load\nfrom huggingface_hub import {function}\n\n"
        f"classifier = load({download})\n{_PREDICT}",
        note,
    )
