r"""The bundle that ships with the package: its recipe over several seeds, and the one that ships.

A `feather` of fewer words learns what an ensemble answers, also to texts without labels, and is
exported. The bundle of the best macro-F1 on validation ships; the test split is read once a seed,
for the table.

$ python benchmarks/pretrained.py --data dair-ai/emotion --runs outputs/versus \
      --unlabelled more_tweets.csv
"""

import hashlib
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from record import write_record
from runs import lstm, transformer, variant

from compress.teachers import further_texts
from edge.bundle import export
from edge.classifier import BundleClassifier
from edge.config import ExportConfig
from edge.pretrained import PATH
from featherweight.dataset import DataConfig, Dataset, load_dataset
from featherweight.evaluation import evaluate
from featherweight.robustness import robustness

MOST_BYTES = 300_000
WORDS = 6_000  # with which the bundle keeps below
# Beyond its training data: what its card shows the limits with.
PROBES = (
    "i am not happy", "i am not sad at all", "the meeting is at noon on tuesday", "",
    "oh great, another monday", "she made him furious", "ich bin so traurig",
    "I'm SOOOO happy!!! 😂 @ann https://example.org", "cant beleive im so hapy",
)  # fmt: skip
TERMS = "educational and research purposes only (dair-ai/emotion)"


def pretrained(
    data: str,
    runs: Path,
    labels: str = "",
    unlabelled: Path | None = None,
    model: str = "minilm",
    epochs: int = 3,
    teachers: tuple[int, ...] = (0, 1, 2, 3, 4),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    temperature: float = 2.0,
    alpha: float = 0.0,
) -> None:
    """Makes a bundle of each seed, writes the best to edge/pretrained and results/pretrained.json.

    Args:
        data: Hub id, folder or file.
        runs: Folder for the runs.
        labels: Label names in id order, where the data does not name its integers.
        unlabelled: Further texts, which only the teachers label.
        model: The transformer among the teachers, with the first of their seeds.
        epochs: Most passes of its fine-tuning.
        teachers: Seeds of the LSTMs among the teachers.
        seeds: Of the students.
        temperature: Of the answers.
        alpha: Weight of the labels.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    source = DataConfig(data=data, labels=labels)
    dataset = load_dataset(source)
    ensemble = [lstm(runs, "feather", source, seed) for seed in teachers]
    ensemble.append(transformer(runs, model, source, teachers[0], epochs))
    rows = []
    for seed in seeds:
        small = lstm(runs, "feather", source, seed, called="emotion", vocab_size=WORDS)
        student = variant(
            small, "distill", teachers=ensemble, unlabelled=unlabelled, seed=seed,
            temperature=temperature, alpha=alpha,
        )  # fmt: skip
        bundle = runs / f"{small.name}.zip"
        export(ExportConfig(student, bundle, license_note=TERMS, overwrite=bundle.exists()))
        rows.append({"seed": seed, "bundle": bundle.name, **_figures(bundle, dataset)})
        print(seed, rows[-1]["validation"]["macro_f1"], rows[-1]["test"]["macro_f1"], flush=True)
    best = max(rows, key=lambda row: row["validation"]["macro_f1"])
    shutil.copyfile(runs / best["bundle"], PATH)
    classifier = BundleClassifier.load(PATH)
    figures = {
        "words": WORDS,
        "teachers": [path.name for path in ensemble],
        "unlabelled": len(further_texts(unlabelled)) if unlabelled else 0,
        "unlabelled_sha256": unlabelled and hashlib.sha256(unlabelled.read_bytes()).hexdigest(),
        "temperature": temperature,
        "alpha": alpha,
        "shipped": {
            "seed": best["seed"],
            "sha256": hashlib.sha256(PATH.read_bytes()).hexdigest(),
            "robustness": [asdict(it) for it in robustness(classifier, dataset.split("test"))],
            "probes": [
                {"text": text, "answer": label, "confidence": float(row.max())}
                for text, label, row in zip(
                    PROBES,
                    classifier.predict(PROBES),
                    classifier.predict_proba(PROBES),
                    strict=True,
                )
            ],
        },
        "rows": rows,
    }
    print(write_record("pretrained", dataset.identity(), figures))


def _figures(bundle: Path, dataset: Dataset) -> dict[str, Any]:
    """Returns the size of a bundle and what it reaches.

    Raises:
        ValueError: It is too large to ship.
    """
    size_bytes = bundle.stat().st_size
    if size_bytes > MOST_BYTES:
        raise ValueError(f"{bundle} has {size_bytes:,} bytes, {MOST_BYTES:,} are allowed")
    classifier = BundleClassifier.load(bundle)
    return {
        "size_bytes": size_bytes,
        **{
            split.name: evaluate(classifier, split, dataset.name).to_json()
            for split in (dataset.validation, dataset.split("test"))
        },
    }


if __name__ == "__main__":
    auto_cli(pretrained, as_positional=False)
