r"""`feather` taught by an ensemble of LSTM seeds and a transformer, against `feather` on its own.

$ python benchmarks/distillation.py --data dair-ai/emotion --runs outputs/versus \
      --unlabelled more_tweets.csv
"""

import hashlib
import logging
from pathlib import Path

from jsonargparse import auto_cli
from shared.record import write_record
from shared.runs import lstm, transformer, variant

from compress.distillation.teachers import unlabeled_texts
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.loading import load
from featherweight.quality.evaluation import evaluate


def distillation(
    data: str,
    runs: Path,
    labels: str = "",
    unlabelled: Path | None = None,
    model: str = "minilm",
    epochs: int = 3,
    teachers: tuple[int, ...] = (0, 1, 2),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    temperature: float = 2.0,
    alpha: float = 0.0,
) -> None:
    """Distils a student of each seed and writes results/distillation.json.

    Args:
        data: Hub id, folder or file.
        runs: Folder for the runs.
        labels: Label names in id order, where the data does not name its integers.
        unlabelled: Further texts, which only the teachers label.
        model: The transformer among the teachers.
        epochs: Most passes of its fine-tuning.
        teachers: Seeds of the LSTMs and of the transformers that teach, so that both count alike.
        seeds: Of the students, and of the LSTMs that they are compared with.
        temperature: Of the answers.
        alpha: Weight of the labels.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    source = DataConfig(data=data, labels=labels)
    dataset = load_dataset(source)
    alone = [lstm(runs, "feather", source, seed) for seed in seeds]
    further = unlabeled_texts(unlabelled) if unlabelled else []
    extra = hashlib.sha256(unlabelled.read_bytes()).hexdigest() if unlabelled else None
    ensemble = [
        *(lstm(runs, "feather", source, seed) for seed in teachers),
        *(transformer(runs, model, source, seed, epochs) for seed in teachers),
    ]
    rows = []
    for seed, origin in zip(seeds, alone, strict=True):
        student = variant(
            origin, "distill", teachers=ensemble, unlabelled=unlabelled, seed=seed,
            temperature=temperature, alpha=alpha,
        )  # fmt: skip
        for path, kind in ((origin, "feather"), (student, "feather, distilled")):
            classifier = load(path)
            rows.append(
                {
                    "model": kind,
                    "seed": seed,
                    "validation": evaluate(classifier, dataset.validation, dataset.name).to_json(),
                    "test": evaluate(classifier, dataset.split("test"), dataset.name).to_json(),
                }
            )
            print(kind, seed, rows[-1]["validation"]["macro_f1"], rows[-1]["test"]["macro_f1"])
    figures = {
        "teachers": [path.name for path in ensemble],
        "unlabelled": len(further),
        "unlabelled_sha256": extra,
        "temperature": temperature,
        "alpha": alpha,
        "rows": rows,
    }
    print(write_record("distillation", dataset.identity(), figures))


if __name__ == "__main__":
    auto_cli(distillation, as_positional=False)
