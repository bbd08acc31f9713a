r"""The bundle that ships with the package: its recipe over several seeds, and the one that ships.

A `feather` of fewer words learns what an ensemble answers and is exported. Two recipes: teachers
that learned from the labels of the training split alone, whose answers to further texts teach too;
and, where the further texts have labels, teachers and students that learned from those as well. The
bundle of the best macro-F1 on validation ships; the test split is read once a seed, for the table.

$ python benchmarks/pretrained.py --data dair-ai/emotion --runs outputs/versus \
      --further more_tweets.csv
"""

import csv
import hashlib
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from shared.record import write_record
from shared.runs import lstm, transformer, variant

from compress.distillation.teachers import unlabeled_texts
from edge.classifier import BundleClassifier
from edge.config import ExportConfig
from edge.export import export
from edge.pretrained import PATH
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.quality.evaluation import evaluate
from featherweight.quality.robustness import robustness
from featherweight.run import atomic_directory

MOST_BYTES = 300_000
# A network of which a core answers 40,000 texts a second, and words with which it keeps below.
SHAPE = {"hidden_dim": 48, "vocab_size": 6_400}
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
    further: Path,
    labels: str = "",
    model: str = "minilm",
    epochs: int = 3,
    teachers: tuple[int, ...] = (0, 1, 2, 3, 4),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    temperature: float = 2.0,
    alpha: float = 0.0,
) -> None:
    """Makes the bundles, writes the best to edge/pretrained and all to results/pretrained.json.

    Args:
        data: Hub id, folder or file.
        runs: Folder for the runs.
        further: CSV file of further texts, with labels.
        labels: Label names in id order, where the data does not name its integers.
        model: The transformer among the teachers, with the first of their seeds.
        epochs: Most passes of its fine-tuning.
        teachers: Seeds of the LSTMs among the teachers.
        seeds: Of the students.
        temperature: Of the answers.
        alpha: Weight of the labels.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plain = DataConfig(data=data, labels=labels)
    recipes = {"plain": (plain, runs), "more labels": (_with(further, plain, runs), runs / "more")}
    rows, facts = [], {}
    for recipe, (source, folder) in recipes.items():
        dataset = load_dataset(source)
        ensemble = [lstm(folder, "feather", source, seed) for seed in teachers]
        ensemble.append(transformer(folder, model, source, teachers[0], epochs))
        facts[recipe] = {"data": dataset.identity(), "teachers": [path.name for path in ensemble]}
        for seed in seeds:
            small = lstm(folder, "feather", source, seed, called="emotion", **SHAPE)
            student = variant(
                small, "distill", teachers=ensemble, seed=seed, temperature=temperature,
                alpha=alpha, unlabelled=further if recipe == "plain" else None,
            )  # fmt: skip
            bundle = folder / f"{small.name}.zip"
            export(ExportConfig(student, bundle, license_note=TERMS, overwrite=bundle.exists()))
            figures = _figures(bundle, dataset)
            rows.append({"recipe": recipe, "seed": seed, "path": bundle, **figures})
            print(recipe, seed, *(figures[it]["macro_f1"] for it in ("validation", "test")))
    best = max(rows, key=lambda row: row["validation"]["macro_f1"])
    shutil.copyfile(best["path"], PATH)
    figures = {
        "shape": SHAPE,
        "further": {"n": len(unlabeled_texts(further)), "sha256": _sha256(further)},
        "temperature": temperature,
        "alpha": alpha,
        "recipes": facts,
        "shipped": {
            "recipe": best["recipe"],
            "seed": best["seed"],
            "sha256": _sha256(PATH),
            **_behavior(BundleClassifier.load(PATH), dataset),
        },
        "rows": [{name: row[name] for name in row if name != "path"} for row in rows],
    }
    print(write_record("pretrained", load_dataset(plain).identity(), figures))


def _with(further: Path, source: DataConfig, runs: Path) -> DataConfig:
    """Writes the data once more, with further labeled texts in its training split."""
    dataset = load_dataset(source)
    labels = ",".join(dataset.labels)
    more = load_dataset(DataConfig(train_path=further, val_path=further, labels=labels)).train
    longer = runs / "more" / f"{dataset.name}-more"
    with atomic_directory(longer) as folder:
        for split in dataset.splits:
            parts = (split, more) if split is dataset.train else (split,)
            rows = [row for it in parts for row in zip(it.texts, it.labels.tolist(), strict=True)]
            with (folder / f"{split.name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *rows])
    return DataConfig(data=str(longer), labels=labels)


def _behavior(classifier: BundleClassifier, dataset: Dataset) -> dict[str, Any]:
    """Returns what its card says beyond the scores."""
    probabilities = classifier.predict_proba(PROBES)
    return {
        "robustness": [asdict(it) for it in robustness(classifier, dataset.split("test"))],
        "probes": [
            {
                "text": text,
                "answer": classifier.labels[row.argmax()],
                "confidence": float(row.max()),
            }
            for text, row in zip(PROBES, probabilities, strict=True)
        ],
    }


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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    auto_cli(pretrained, as_positional=False)
