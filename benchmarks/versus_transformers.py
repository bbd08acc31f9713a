"""The LSTM against a fine-tuned transformer, a frozen one, the baselines, and BERT's speed.

Several seeds of `feather` and of a fine-tuned transformer, one row each; every checkpoint is chosen
on validation, and the test split is read once a run, for this table. Runs that are in the folder
already are taken as they are, so that nothing is lost when the program is stopped.

$ python benchmarks/versus_transformers.py --data dair-ai/emotion --runs outputs/versus
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from jsonargparse import auto_cli
from record import RESULTS, write_record

from compress.config import CompressConfig
from compress.variant import compress_run
from featherweight import plots
from featherweight.config import CompareConfig
from featherweight.contest import compete, enter
from featherweight.dataset import DataConfig, load_dataset
from featherweight.run import Run, atomic_open
from lstm.config import preset
from lstm.experiment import train
from transformer_eval.config import FeaturesConfig, FinetuneConfig
from transformer_eval.features import features
from transformer_eval.finetuning import finetune
from transformer_eval.versus import timed_only


def versus_transformers(
    data: str,
    runs: Path,
    labels: str = "",
    model: str = "minilm",
    epochs: int = 3,
    seeds: tuple[int, ...] = (0, 1, 2),
    timed: tuple[str, ...] = ("distilbert", "bert-base"),
    threads: int = 1,
) -> None:
    """Trains what is not there yet, and writes results/versus-transformers.json and its picture.

    Args:
        data: Hub id, folder or file.
        runs: Folder for the runs.
        labels: Label names in id order, where the data does not name its integers.
        model: The transformer that is fine-tuned, and used frozen.
        epochs: Most passes of its fine-tuning.
        seeds: Of both trainings.
        timed: Further transformers, of which only speed and size are measured.
        threads: CPU threads of each contender while it is timed.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    source = DataConfig(data=data, labels=labels)
    dataset = load_dataset(source)
    weights = list(_trained(source, runs, model, epochs, seeds))
    entrants = [enter(path, "auto") for path in weights]
    with TemporaryDirectory() as folder:
        entrants += [timed_only(it, dataset, Path(folder) / it, "auto") for it in timed]
        config = CompareConfig(reference="feather", group=True, threads=threads)
        record, evaluations = compete(config, entrants, source)
    del record["command"], record["environment"]  # write_record knows this program's own
    tests = {evaluation.model: evaluation.to_json() for evaluation in evaluations}
    singles = [
        {
            "model": entrant.classifier.name,
            "validation": Run(path).read_json("evaluation.json"),
            "test": tests[entrant.classifier.name],
        }
        for path, entrant in zip(weights, entrants, strict=False)  # those only timed come last
    ]
    figures = {"comparison": record, "runs": singles}
    print(write_record("versus-transformers", dataset.identity(), figures))
    with atomic_open(RESULTS / "versus_transformers.png", "wb") as file:
        file.write(plots.trade_off(record))


def _trained(
    source: DataConfig, runs: Path, model: str, epochs: int, seeds: Sequence[int]
) -> Iterator[Path]:
    """Yields the run of every training, and the fp16 variant of the LSTM's."""
    for seed in seeds:
        run = Run(runs / f"feather-{seed}")
        if not run.finished:
            train(preset("feather", data=source.data, labels=source.labels, seed=seed,
                         name=run.path.name, output_dir=runs, overwrite=True))  # fmt: skip
        yield run.path
        variant = run.path / "compressed" / "fp16"
        if not variant.exists():
            compress_run(CompressConfig(weights=run.path))
        yield variant
    for seed in seeds:
        run = Run(runs / f"{model}-{seed}")
        if not run.finished:
            finetune(FinetuneConfig(model=[model], data=source.data, labels=source.labels,
                                    seed=seed, epochs=epochs, name=run.path.name, output_dir=runs,
                                    overwrite=run.path.exists()), model)  # fmt: skip
        yield run.path
    run = Run(runs / f"{model}-frozen")
    if not run.finished:
        features(FeaturesConfig(model=[model], data=source.data, labels=source.labels,
                                name=run.path.name, output_dir=runs,
                                cache_dir=runs / ".embeddings"), model)  # fmt: skip
    yield run.path


if __name__ == "__main__":
    auto_cli(versus_transformers, as_positional=False)
