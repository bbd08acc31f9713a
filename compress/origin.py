"""The run that is compressed: its model and its data."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from compress.config import CompressConfig
from featherweight.classifier import Classifier
from featherweight.data.checks import drop_leaks
from featherweight.data.dataset import Dataset, load_dataset
from featherweight.errors import UsageError
from featherweight.loading import load
from featherweight.quality.evaluation import Evaluation, evaluate, validation_scores
from featherweight.run import COMPRESSION, CONFIG, Run, newest_run
from featherweight.test import trained_on
from featherweight.weights import file_sha256


@dataclass(frozen=True)
class Origin:
    """A run, its model and its data.

    Attributes:
        run: The run; its variants are written into it.
        classifier: Its model, a `Classifier`; each method knows of which kind.
        dataset: What it was trained on, without the texts that its training dropped.
    """

    run: Run
    classifier: Any
    dataset: Dataset

    @classmethod
    def load(cls, run: Run, device: str) -> "Origin":
        """Loads the model and the data of a run.

        Raises:
            WeightsError: Its model cannot be loaded.
            DataError: Its data no longer exists, or a file of it cannot be used.
        """
        classifier = load(run.path, device)
        data = trained_on(run)
        dataset = load_dataset(data, classifier.labels)
        return cls(run, classifier, drop_leaks(dataset)[0] if data.drop_leaks else dataset)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Its evaluation on validation, which each variant is compared with."""
        return evaluate(self.classifier, self.dataset.validation, self.dataset.name)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file of its weights."""
        assert self.run.weights  # they were loaded
        return file_sha256(self.run.weights)

    def macro_f1(self, variant: Classifier) -> float:
        """Returns the macro-F1 of a variant on the validation split."""
        split = self.dataset.validation
        return validation_scores(split.labels, variant.logits(split.texts))["validation_macro_f1"]


def origin_of(config: CompressConfig) -> Run:
    """Returns the run to compress.

    Raises:
        UsageError: There is none, or it is a variant itself.
    """
    run = Run(config.weights) if config.weights else newest_run(config.output_dir)
    if not run.file(CONFIG).is_file():
        raise UsageError(f"{run.path} is not a run directory: a variant is written into its run")
    if run.file(COMPRESSION).is_file():
        raise UsageError(f"{run.path} is compressed already: compress the run it was made from")
    return run
