r"""Builds the bundle that ships with the package: two recipes over several seeds, the best ships.

A small `feather` is distilled from an ensemble and exported. In the recipe "plain", the teachers
were trained on the labels of the training split alone and also label further texts; in the recipe
"more labels", teachers and students were trained on the labels of the further texts as well. The
bundle with the best macro-F1 on validation ships; the test split is evaluated once per seed.

$ python benchmarks/pretrained.py --data dair-ai/emotion --runs outputs/versus \
      --further more_tweets.csv
"""

import csv
import shutil
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
from featherweight.quality.robustness import robustness
from featherweight.run import atomic_directory
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
    """Builds the bundles, copies the best to edge/pretrained and writes results/pretrained.json.

    Args:
        data: Hub id, folder or file.
        runs: Folder of the runs.
        further: CSV file of further labeled texts.
        labels: Label names in id order, if the data does not name its integers.
        model: Transformer among the teachers, with the first of their seeds.
        epochs: Maximum number of epochs of its fine-tuning.
        teachers: Seeds of the LSTMs among the teachers.
        seeds: Seeds of the students.
        temperature: Softmax temperature of the distillation.
        alpha: Weight of the labels in the loss.
    """
    plain = DataConfig(data=data, labels=labels)
    extended = _extended(plain, further, runs / "more")
    recipes = {"plain": (plain, runs), "more labels": (extended, runs / "more")}
    rows, bundles, facts = [], [], {}
    for recipe, (source, folder) in recipes.items():
        dataset = load_dataset(source)
        ensemble = [lstm(folder, "feather", source, seed) for seed in teachers]
        ensemble.append(transformer(folder, model, source, teachers[0], epochs))
        facts[recipe] = {"data": dataset.identity(), "teachers": [path.name for path in ensemble]}
        for seed in seeds:
            small = lstm(folder, "feather", source, seed, f"emotion-{seed}", **SHAPE)
            student = variant(
                small, "distill", teachers=ensemble, seed=seed, temperature=temperature,
                alpha=alpha, unlabelled=further if recipe == "plain" else None,
            )  # fmt: skip
            bundle = folder / f"{small.name}.zip"
            export(ExportConfig(student, bundle, license_note=TERMS, overwrite=bundle.exists()))
            bundles.append(bundle)
            rows.append({"recipe": recipe, "seed": seed, **_evaluated(bundle, dataset)})
            print(recipe, seed, *(rows[-1][split]["macro_f1"] for split in ("validation", "test")))
    best = max(range(len(rows)), key=lambda index: rows[index]["validation"]["macro_f1"])
    shutil.copyfile(bundles[best], PATH)
    values = {
        "shape": SHAPE,
        "further": {"n": len(unlabeled_texts(further)), "sha256": file_sha256(further)},
        "temperature": temperature,
        "alpha": alpha,
        "recipes": facts,
        "shipped": {
            "recipe": rows[best]["recipe"],
            "seed": rows[best]["seed"],
            "sha256": file_sha256(PATH),
            **_behavior(BundleClassifier.load(PATH), dataset),
        },
        "rows": rows,
    }
    write_record("pretrained", load_dataset(plain).identity(), values)


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
                csv.writer(file).writerows(rows)
    return DataConfig(data=str(path), labels=labels)


def _behavior(classifier: BundleClassifier, dataset: Dataset) -> dict[str, Any]:
    """Returns what the model card shows beyond the scores."""
    probabilities = classifier.predict_proba(PROBES)
    return {
        "robustness": [asdict(row) for row in robustness(classifier, dataset.split("test"))],
        "probes": [
            {
                "text": text,
                "answer": classifier.labels[row.argmax()],
                "confidence": float(row.max()),
            }
            for text, row in zip(PROBES, probabilities, strict=True)
        ],
    }


def _evaluated(bundle: Path, dataset: Dataset) -> dict[str, Any]:
    """Returns the size and the evaluations of a bundle.

    Raises:
        ValueError: It is too large to ship.
    """
    size_bytes = bundle.stat().st_size
    if size_bytes > MAX_BYTES:
        raise ValueError(f"{bundle} has {size_bytes:,} bytes, {MAX_BYTES:,} are allowed")
    return {"size_bytes": size_bytes, **evaluations(BundleClassifier.load(bundle), dataset)}


if __name__ == "__main__":
    run(pretrained)
