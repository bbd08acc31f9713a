"""The README.md of a repository on the Hub: a run's model card, fit for readers elsewhere."""

import re
from collections.abc import Iterable
from typing import Any

from featherweight.errors import WeightsError
from featherweight.run import CONFIG, MODEL, ONNX, ONNX_FACTS, TRANSFORMER, Run
from featherweight.weights import read_metadata

PICTURES = ("confusion_matrix.png", "training_curves.png")
ADAPTER = "adapter"  # folder beside a base that stays as it was
_USE = re.compile(r"## Use\n\n```python\n.*?```\n+", re.DOTALL)
_PACKAGES = {"bitsandbytes": "bitsandbytes", "torchao": "torchao"}  # by quant_method of config.json


def hub_card(run: Run, repo_id: str, license: str, files: Iterable[str]) -> str:
    """Returns a run's model card with the metadata that the Hub reads.

    Args:
        run: A finished run, or a variant.
        repo_id: Where it goes, "owner/name"; the card says how to load it from there.
        license: Identifier such as "mit"; empty: none.
        files: Names of the others in the repository.

    Raises:
        WeightsError: Its card or its figures are missing or damaged.
    """
    try:
        body = run.file("README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise WeightsError(f"{run.path} has no readable README.md: run test to write it") from None
    # Lines that point to a file which stays behind would point nowhere.
    behind = {"data.json", *PICTURES} - set(files)
    lines = [line for line in body.splitlines() if not any(name in line for name in behind)]
    body = _USE.sub("", "\n".join(lines) + "\n").rstrip("\n")
    metadata = _metadata(run, license).to_yaml()
    return f"---\n{metadata}\n---\n\n{body}\n\n## Use\n\n{_use(run, repo_id)}"


def _metadata(run: Run, license: str) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    figures = run.read_json("evaluation.json")
    metrics = {"accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro F1")}
    try:
        name = figures["model"]
        results = [
            EvalResult(
                task_type="text-classification",
                task_name="Text Classification",
                dataset_type=figures["data"],
                dataset_name=figures["data"],
                dataset_split=figures["split"],
                dataset_args={"n": figures["n"]},
                metric_type=metric,
                metric_name=f"{title} ({figures['split']}, n = {figures['n']})",
                metric_value=figures[score],
            )
            for score, (metric, title) in metrics.items()
        ]
    except (KeyError, TypeError):
        path = run.file("evaluation.json")
        raise WeightsError(f"{path} is not that of a run: run test to write it anew") from None
    in_pipeline = run.file(TRANSFORMER).is_dir() and not _not_in_pipeline(run)
    return ModelCardData(
        license=license or None,
        library_name="transformers" if in_pipeline else "featherweight",
        pipeline_tag="text-classification",
        tags=["featherweight", *_kinds(run)],
        model_name=name,
        eval_results=results,
    )


def _kinds(run: Run) -> list[str]:
    if run.exported:
        return [str(Run(run.file(ONNX)).read_json(ONNX_FACTS).get("kind")), "onnx"]
    return ["transformer" if run.file(TRANSFORMER).is_dir() else "lstm"]


def _not_in_pipeline(run: Run) -> str:
    """Returns why `pipeline` of transformers cannot answer with a model, or "" if it can."""
    if run.exported:
        return "is stored as an ONNX graph, which onnxruntime computes on the CPU"
    folder = run.file(TRANSFORMER)
    if (folder / ADAPTER).is_dir():
        return "is a base in 4 bits with adapters beside it"
    # By its name: the module that writes the format brings PyTorch along.
    if read_metadata(folder / MODEL).get("format", "").startswith("featherweight-sparse/"):
        return "has weights that are stored without their zeros"
    return ""


def _use(run: Run, repo_id: str) -> str:
    """Returns the program by which a reader of the card gets an answer, and what it needs."""
    answer = 'print(classifier.predict(["i feel so happy today"]))\n'
    if not run.exported and not run.file(TRANSFORMER).is_dir():
        return _program(
            "from featherweight import load\nfrom huggingface_hub import hf_hub_download\n\n"
            f'classifier = load(hf_hub_download("{repo_id}", "{MODEL}"))\n{answer}'
        )
    why = _not_in_pipeline(run)
    if why:
        program = (
            "from featherweight import load\nfrom huggingface_hub import snapshot_download\n\n"
            f'classifier = load(snapshot_download("{repo_id}"))\n{answer}'
        )
        note = f"This model {why}: `pipeline` cannot read it, featherweight can."
        return f"{note}\n\n{_program(program)}"
    config = Run(run.file(TRANSFORMER)).read_json(CONFIG)
    normalizer = config.get("text_normaliser")
    text = '"i feel so happy today"'
    if normalizer:
        text = f'NORMALIZERS["{normalizer}"]({text})'
    program = (
        ("from transformer_eval.normalization import NORMALIZERS\n" if normalizer else "")
        + "from transformers import pipeline\n\n"
        f'classifier = pipeline("text-classification", model="{repo_id}")\n'
        f"print(classifier({text}))\n"
    )
    method = (config.get("quantization_config") or {}).get("quant_method")
    package = _PACKAGES.get(str(method))
    needed = f"Its weights are quantized: `pip install {package}`.\n\n" if package else ""
    return needed + _program(program)


def _program(code: str) -> str:
    return f"```python\n{code}```\n"
