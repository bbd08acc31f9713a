"""Compares the LSTM with fine-tuned, frozen and timed-only transformers and the baselines.

Several seeds of `feather` and of a fine-tuned transformer make one row each. Every checkpoint is
chosen on validation; the test split is evaluated once per run. Finished runs in the folder are
reused, so the program can be stopped and started again.

$ python benchmarks/versus_transformers.py --data dair-ai/emotion --runs outputs/versus
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from shared.record import run, write_comparison
from shared.runs import frozen, lstm, transformer, variant

from featherweight.comparison.compare import compare_entrants
from featherweight.comparison.entrants import enter
from featherweight.config import CompareConfig
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.run import Run
from transformer_eval.test_transformer import timed_only


def versus_transformers(
    source: DataConfig,
    runs: Path,
    model: str = "minilm",
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int = 3,
    timed: tuple[str, ...] = ("distilbert", "bert-base"),
    threads: int = 1,
) -> None:
    """Trains missing runs, and writes results/versus-transformers.json and its picture.

    Args:
        source: The data set.
        runs: Folder of the runs.
        model: Transformer that is fine-tuned, and used frozen.
        seeds: Seeds of the LSTMs and of the fine-tuned transformers.
        epochs: Maximum number of epochs of the fine-tuning.
        timed: Further transformers, of which only speed and size are measured.
        threads: CPU threads of each model while it is timed.
    """
    dataset = load_dataset(source)
    lstms = [lstm(runs, "feather", source, seed) for seed in seeds]
    weights = [
        *lstms,
        *(variant(path, "fp16") for path in lstms),
        *(transformer(runs, model, source, seed, epochs) for seed in seeds),
        frozen(runs, model, source),
    ]
    entrants = [enter(path, "auto") for path in weights]
    names = [entrant.classifier.name for entrant in entrants]
    with TemporaryDirectory() as folder:
        entrants += [timed_only(name, dataset, Path(folder) / name, "auto") for name in timed]
        config = CompareConfig(reference="feather", group=True, threads=threads)
        record, evaluations = compare_entrants(config, entrants, source)
    tests = {evaluation.model: evaluation.to_json() for evaluation in evaluations}
    singles = [
        {"model": name, "validation": Run(path).read_json("evaluation.json"), "test": tests[name]}
        for name, path in zip(names, weights, strict=True)
    ]
    write_comparison("versus-transformers", "versus_transformers", dataset, record, runs=singles)


if __name__ == "__main__":
    run(versus_transformers)
