r"""Compares `feather` distilled from an ensemble with `feather` trained on the labels alone.

$ python benchmarks/distillation.py --data dair-ai/emotion --runs outputs/versus \
      --unlabelled more_tweets.csv
"""

from pathlib import Path

from shared.record import evaluations, run, write_record
from shared.runs import lstm, transformer, variant

from compress.distillation.teachers import unlabeled_texts
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.loading import load
from featherweight.weights import file_sha256


def distillation(
    source: DataConfig,
    runs: Path,
    unlabelled: Path | None = None,
    model: str = "minilm",
    epochs: int = 3,
    teachers: tuple[int, ...] = (0, 1, 2),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    temperature: float = 2.0,
    alpha: float = 0.0,
) -> None:
    """Distills a student of each seed and writes results/distillation.json.

    Args:
        source: The data set.
        runs: Folder of the runs.
        unlabelled: File of further texts, labeled by the teachers only.
        model: Transformer among the teachers.
        epochs: Maximum number of epochs of its fine-tuning.
        teachers: Seeds of the teachers: one LSTM and one transformer each.
        seeds: Seeds of the students, and of the LSTMs that they are compared with.
        temperature: Softmax temperature of the distillation.
        alpha: Weight of the labels in the loss.
    """
    taught = {"temperature": temperature, "alpha": alpha}
    dataset = load_dataset(source)
    ensemble = [
        *(lstm(runs, "feather", source, seed) for seed in teachers),
        *(transformer(runs, model, source, seed, epochs) for seed in teachers),
    ]
    rows = []
    for seed in seeds:
        origin = lstm(runs, "feather", source, seed)
        flags = {"teachers": ensemble, "unlabelled": unlabelled, "seed": seed, **taught}
        student = variant(origin, "distill", **flags)
        for path, name in ((origin, "feather"), (student, "feather, distilled")):
            rows.append({"model": name, "seed": seed, **evaluations(load(path), dataset)})
    values = {
        "teachers": [path.name for path in ensemble],
        "unlabelled": len(unlabeled_texts(unlabelled)) if unlabelled else 0,
        "unlabelled_sha256": file_sha256(unlabelled) if unlabelled else None,
        **taught,
        "rows": rows,
    }
    write_record("distillation", dataset.identity(), values)


if __name__ == "__main__":
    run(distillation)
