"""The LSTM against a fine-tuned transformer, a frozen one, the baselines, and BERT's speed.

Several seeds of `feather` and of a fine-tuned transformer, one row each; every checkpoint is chosen
on validation, and the test split is read once a run, for this table. Runs that are in the folder
already are taken as they are, so that nothing is lost when the program is stopped.

$ python benchmarks/versus_transformers.py --data dair-ai/emotion --runs outputs/versus
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from jsonargparse import auto_cli
from shared.record import RESULTS, write_record
from shared.runs import frozen, lstm, transformer, variant

from featherweight.comparison import plots
from featherweight.comparison.compare import compare_entrants
from featherweight.comparison.entrants import enter
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.run import Run, atomic_open
from transformer_eval.test_transformer import timed_only


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
    tiny = [lstm(runs, "feather", source, seed) for seed in seeds]
    weights = [
        *tiny,
        *(variant(run, "fp16") for run in tiny),
        *(transformer(runs, model, source, seed, epochs) for seed in seeds),
        frozen(runs, model, source),
    ]
    entrants = [enter(path, "auto") for path in weights]
    with TemporaryDirectory() as folder:
        entrants += [timed_only(it, dataset, Path(folder) / it, "auto") for it in timed]
        config = CompareConfig(reference="feather", group=True, threads=threads)
        record, evaluations = compare_entrants(config, entrants, source)
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


if __name__ == "__main__":
    auto_cli(versus_transformers, as_positional=False)
