r"""Builds the bundle that ships with the package: two recipes over several seeds, the best ships.

A small `feather` is distilled from an ensemble and exported. In the recipe "plain", the teachers
were trained on the labels of the training split alone and also label further texts; in the recipe
"more labels", teachers and students were trained on the labels of the further texts as well. The
bundle with the best macro-F1 on validation ships; the test split is evaluated once per seed.

$ python benchmarks/pretrained.py --data dair-ai/emotion --runs outputs/versus \
      --further more_tweets.csv
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.record import evaluations, run, write_record
from shared.runs import lstm, transformer, variant

from compress.distillation.teachers import unlabeled_texts
from edge.classifier import BundleClassifier
from edge.config import ExportConfig
from edge.export import export
from edge.pretrained import PATH
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.disk.atomic import atomic_directory
from featherweight.prediction.cells import write_rows
from featherweight.quality.robustness import robustness
from featherweight.weights import file_sha256

MAX_BYTES = 300_000
# One core classifies 40,000 texts per second with this network; the vocabulary fits MAX_BYTES.
SHAPE = {"hidden_dim": 48, "vocab_size": 6_400}
# Unlike the training data: the model card shows the limits of the model on these texts.
PROBES = (
    "i am not happy", "i am not sad at all", "the meeting is at noon on tuesday", "",
    "oh great, another monday", "she made him furious", "ich bin so traurig",
    "I'm SOOOO happy!!! 😂 @ann https://example.org", "cant beleive im so hapy",
)  # fmt: skip
TERMS = "educational and research purposes only (dair-ai/emotion)"


def pretrained(
    source: DataConfig,
    runs: Path,
    further: Path,
    model: str = "minilm",
    epochs: int = 3,
    teachers: tuple[int, ...] = (0, 1, 2, 3, 4),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    temperature: float = 2.0,
    alpha: float = 0.0,
) -> None:
    """Builds the bundles, copies the best to edge/pretrained and writes results/pretrained.json.

    Args:
        source: The data set.
        runs: Folder of the runs.
        further: CSV file of further labeled texts.
        model: Transformer among the teachers, with the first of their seeds.
        epochs: Maximum number of epochs of its fine-tuning.
        teachers: Seeds of the LSTMs among the teachers.
        seeds: Seeds of the students.
        temperature: Softmax temperature of the distillation.
        alpha: Weight of the labels in the loss.
    """
    taught = {"temperature": temperature, "alpha": alpha}
    more = runs / "more"
    extended = _extended(source, further, more)
    recipes = {"plain": (source, runs, further), "more labels": (extended, more, None)}
    rows, facts = {}, {}
    for recipe, (data, folder, unlabelled) in recipes.items():
        ensemble = [lstm(folder, "feather", data, seed) for seed in teachers]
        ensemble.append(transformer(folder, model, data, teachers[0], epochs))
        dataset = load_dataset(data)
        facts[recipe] = {"data": dataset.identity(), "teachers": [path.name for path in ensemble]}
        for seed in seeds:
            small = lstm(folder, "feather", data, seed, f"emotion-{seed}", **SHAPE)
            flags = {"teachers": ensemble, "unlabelled": unlabelled, "seed": seed, **taught}
            bundle = _distilled(small, **flags)
            rows[bundle] = {"recipe": recipe, "seed": seed, **_evaluated(bundle, dataset)}
    values = {
        "shape": SHAPE,
        "further": {"n": len(unlabeled_texts(further)), "sha256": file_sha256(further)},
        **taught,
        "recipes": facts,
        "shipped": _ship(rows, dataset),
        "rows": list(rows.values()),
    }
    write_record("pretrained", load_dataset(source).identity(), values)


def _extended(source: DataConfig, further: Path, folder: Path) -> DataConfig:
    """Writes a copy of the data with further labeled texts in its training split."""
    dataset = load_dataset(source)
    labels = ",".join(dataset.labels)
    more = load_dataset(DataConfig(train_path=further, val_path=further, labels=labels)).train
    path = folder / f"{dataset.name}-more"
    with atomic_directory(path) as copy:
        for split in dataset.splits:
            rows = [("text", "label"), *zip(split.texts, split.labels.tolist(), strict=True)]
            if split is dataset.train:
                rows += zip(more.texts, more.labels.tolist(), strict=True)
            with (copy / f"{split.name}.csv").open("w", encoding="utf-8", newline="") as file:
                write_rows(file, rows, raw=True)  # to train on, not to open in a spreadsheet
    return DataConfig(data=str(path), labels=labels)


def _distilled(origin: Path, **flags: Any) -> Path:
    """Distills and exports a student; returns its bundle."""
    student = variant(origin, "distill", **flags)
    bundle = origin.with_name(f"{origin.name}.zip")
    export(ExportConfig(student, bundle, license_note=TERMS, overwrite=bundle.exists()))
    return bundle


def _evaluated(bundle: Path, dataset: Dataset) -> dict[str, Any]:
    """Returns the size and the evaluations of a bundle.

    Raises:
        ValueError: It is too large to ship.
    """
    size_bytes = bundle.stat().st_size
    if size_bytes > MAX_BYTES:
        raise ValueError(f"{bundle} has {size_bytes:,} bytes, {MAX_BYTES:,} are allowed")
    return {"size_bytes": size_bytes, **evaluations(BundleClassifier.load(bundle), dataset)}


def _ship(rows: Mapping[Path, Mapping[str, Any]], dataset: Dataset) -> dict[str, Any]:
    """Copies the best bundle into the package; returns the facts for its model card."""
    best = max(rows, key=lambda bundle: rows[bundle]["validation"]["macro_f1"])
    shutil.copyfile(best, PATH)
    classifier = BundleClassifier.load(PATH)
    probes = zip(PROBES, classifier.predict_proba(PROBES), strict=True)
    return {
        "recipe": rows[best]["recipe"],
        "seed": rows[best]["seed"],
        "sha256": file_sha256(PATH),
        "robustness": [asdict(row) for row in robustness(classifier, dataset.split("test"))],
        "probes": [
            {
                "text": text,
                "answer": classifier.labels[row.argmax()],
                "confidence": float(row.max()),
            }
            for text, row in probes
        ],
    }


if __name__ == "__main__":
    run(pretrained)
