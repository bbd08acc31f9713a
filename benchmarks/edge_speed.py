"""Compares the bundle with other models on one core: speed, size, quality and cold start.

All models compute on one thread, each in a separate process and in turns, from texts to label
names. Finished runs in the folder are reused; a model that is not available is left out, and the
record says why.

$ pip install -c constraints.txt openvino fasttext-numpy2-wheel  # two of the models
$ python benchmarks/edge_speed.py --data dair-ai/emotion --runs outputs/versus
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rendering import edge
from shared import peers
from shared.record import RESULTS, run, write_record
from shared.runs import variant

from edge.pretrained import PATH as PRETRAINED
from edge.runtime import load
from featherweight.classifier import Classifier
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.disk.atomic import atomic_open
from featherweight.errors import FeatherweightError
from featherweight.quality.evaluation import evaluate
from featherweight.run import Run
from featherweight.timing.latency import Contender, Latency, measure
from transformer_eval.test_transformer import timed_only

ROOT = Path(__file__).parent.parent
BUNDLE, OPENVINO, LSTM = "bundle", "bundle's graph in OpenVINO", "its LSTM in PyTorch"
SAME_NETWORK = (BUNDLE, OPENVINO, LSTM)
REFERENCE = "bert-base"

ONE_TEXT_BATCHES = 50  # at least; fast models are timed for thousands
BATCHES = 20  # of the whole split
FEW_TEXTS, FEW_BATCHES = 128, 5  # for transformers, which take seconds for these
BATCH_SIZE, TRANSFORMER_BATCH_SIZE = 256, 32  # texts of similar length in PyTorch
COLD_STARTS = 15

logger = logging.getLogger("featherweight")

_COLD_START = """
import json, time
times = [time.perf_counter()]
from edge.runtime import load
times.append(time.perf_counter())
bundle = load({path!r})
times.append(time.perf_counter())
bundle.predict([{text!r}])
times.append(time.perf_counter())
print(json.dumps(times), flush=True)
"""


@dataclass(frozen=True)
class Peer:
    """A model to measure.

    Attributes:
        factory: Name of the function of `peers` that creates it.
        arguments: Arguments of the function besides the device.
        slow: Whether the whole split in one batch would take minutes.
        has_quality: Whether its weights are trained, so that its quality is evaluated.
        note: Explanation below the table.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    has_quality: bool = True
    note: str = ""

    def contender(self, name: str) -> Contender:
        """Returns how the process that times it creates it."""
        return Contender(name, factory=f"shared.peers:{self.factory}", arguments=self.arguments)

    def classifier(self) -> Classifier:
        """Returns its classifier.

        Raises:
            ImportError: Its library is not installed.
            FeatherweightError: Its run does not exist.
        """
        return getattr(peers, self.factory)("cpu", **self.arguments).classifier


Factory = Callable[[], Peer]
Rows = dict[str, dict[str, Any]]


def edge_speed(
    source: DataConfig,
    runs: Path,
    bundle: Path = PRETRAINED,
    origin: Path | None = None,
    transformer: str = "minilm",
) -> None:
    """Measures, and writes results/edge-speed.json and edge_speed.png.

    Args:
        source: The data set.
        runs: Folder of the runs.
        bundle: Folder or zip file that export wrote.
        origin: Run that the bundle was exported from; default: the run of its name in runs.
        transformer: Fine-tuned transformer; its run with seed 0 is in runs.
    """
    core = _use_one_core()
    dataset = load_dataset(source)
    texts = dataset.split("test").texts
    facts = load(bundle).metadata
    lstm = origin or runs / str(facts["name"])
    with TemporaryDirectory() as folder:
        factories = _tiny_models(source, dataset, bundle, lstm, Path(folder))
        factories |= _transformers(runs, transformer, dataset, Path(folder))
        available, rows, left_out = _evaluate(factories, dataset)
        stages = _time_one_text(available, rows, texts, str(bundle))
        _time_bulk(available, rows, texts)
    values = {
        "core": core,
        "bundle": {"name": facts["name"], "graph": facts["graph"]["dtype"]},
        "rows": list(rows.values()),
        "left_out": left_out,
        "stages_us": stages,
        "cold_start": _cold_start(bundle, texts[0]),
        "peers": _versions(),
    }
    write_record("edge-speed", dataset.identity(), values)
    with atomic_open(RESULTS / "edge_speed.png", "wb") as file:
        file.write(edge.picture(values))


def _tiny_models(
    source: DataConfig, dataset: Dataset, bundle: Path, lstm: Path, folder: Path
) -> dict[str, Factory]:
    path = {"path": str(bundle)}
    note = _label_note(load(bundle).metadata["data"], dataset)
    return {
        BUNDLE: lambda: Peer("bundle", path, note=note),
        OPENVINO: lambda: Peer("openvino_bundle", path),
        LSTM: lambda: _trained(lstm),
        "fastText": lambda: _fasttext(dataset, folder / "fasttext.bin"),
        "TF-IDF + linear SVM": lambda: Peer("svm", {"data": source.data, "labels": source.labels}),
    }


def _transformers(runs: Path, name: str, dataset: Dataset, folder: Path) -> dict[str, Factory]:
    fine_tuned, more_labels = runs / f"{name}-0", runs / "more" / f"{name}-0"

    def with_more_labels() -> Peer:
        note = _label_note(Run(more_labels).read_json("data.json"), dataset)
        return _trained(more_labels, slow=True, note=note)

    return {
        f"{name} in PyTorch": lambda: _trained(fine_tuned, slow=True),
        f"{name}, more labels": with_more_labels,
        f"{name}, onnx-int8": lambda: _trained(variant(fine_tuned, "onnx-int8"), slow=True),
        REFERENCE: lambda: _timed_only(dataset, folder / REFERENCE),
    }


def _use_one_core() -> int | None:
    """Binds this process and its children to one core and one thread; returns the core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):  # macOS
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def _label_note(data: Mapping[str, Any], dataset: Dataset) -> str:
    """Returns the note on a model that was trained on more labels than the training split has."""
    labels, official = data["splits"]["train"]["n"], len(dataset.train)
    if labels == official:
        return ""
    return f"trained on {labels:,} labeled texts, {labels - official:,} of them beyond the split"


def _trained(path: Path, slow: bool = False, **facts: Any) -> Peer:
    batch_size = TRANSFORMER_BATCH_SIZE if slow else BATCH_SIZE
    return Peer("trained", {"weights": str(path), "batch_size": batch_size}, slow, **facts)


def _fasttext(dataset: Dataset, path: Path) -> Peer:
    peers.train_fasttext(dataset.train, path)
    return Peer("fasttext", {"path": str(path), "labels": dataset.labels})


def _timed_only(dataset: Dataset, folder: Path) -> Peer:
    note = timed_only(REFERENCE, dataset, folder, "cpu").row.note
    return _trained(folder, slow=True, has_quality=False, note=note)


def _evaluate(
    factories: Mapping[str, Factory], dataset: Dataset
) -> tuple[dict[str, Peer], Rows, dict[str, str]]:
    """Creates the models and evaluates them on the test split.

    Returns:
        The available models, the row of each, and why the others are left out, by name.
    """
    test = dataset.split("test")
    available, rows, left_out, predictions = {}, {}, {}, {}
    for name, create in factories.items():
        try:
            peer = create()
            classifier = peer.classifier()
        except (ImportError, FeatherweightError) as error:
            left_out[name] = str(error)
            logger.warning("%s is left out: %s", name, error)
            continue
        logger.info("%s: classifying %d texts", name, len(test))
        evaluation = evaluate(classifier, test, dataset.name) if peer.has_quality else None
        available[name] = peer
        rows[name] = {
            "model": name,
            "backend": classifier.backend,
            "dtype": classifier.dtype,
            "size_bytes": classifier.size_bytes(),
            "evaluation": evaluation and evaluation.to_json(),
            "note": peer.note,
        }
        if evaluation and name in SAME_NETWORK:
            predictions[name] = evaluation.predictions
            rows[name] |= {
                "same_labels": float((predictions[name] == predictions[BUNDLE]).mean()),
                "batch_sensitivity": _batch_sensitivity(classifier, test.texts[:FEW_TEXTS]),
            }
    return available, rows, left_out


def _batch_sensitivity(classifier: Classifier, texts: Sequence[str]) -> float:
    """Returns the largest change of a probability by the other texts of a batch."""
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts])
    return float(np.abs(classifier.predict_proba(texts) - alone).max())


def _time_one_text(
    available: Mapping[str, Peer], rows: Rows, texts: Sequence[str], bundle: str
) -> dict[str, float]:
    """Adds the times of single texts to the rows; returns the stages of the bundle's, in us."""
    parts = {name: Peer(name, {"path": bundle}) for name in ("tokenizing", "graph")}
    contenders = [peer.contender(name) for name, peer in {**available, **parts}.items()]
    latencies = measure(contenders, texts, batch_sizes=[1], min_iterations=ONE_TEXT_BATCHES)
    one = {latency.model: latency for latency in latencies}
    for name, row in rows.items():
        row["one"] = _timing(one[name])
        if REFERENCE in one:
            row["faster"] = one[REFERENCE].percentile(50) / one[name].percentile(50)
    tokenizing = 1000 * one["tokenizing"].percentile(50, "encode")
    graph = 1000 * one["graph"].percentile(50, "forward")
    rest = 1000 * one[BUNDLE].percentile(50) - tokenizing - graph
    return {"tokenizing": tokenizing, "graph": graph, "rest": rest}


def _time_bulk(available: Mapping[str, Peer], rows: Rows, texts: Sequence[str]) -> None:
    """Adds the times of all texts in one batch to the rows, and of fewer for slow models."""
    for slow, size, batches in ((False, len(texts), BATCHES), (True, FEW_TEXTS, FEW_BATCHES)):
        contenders = [peer.contender(name) for name, peer in available.items() if peer.slow == slow]
        for latency in measure(contenders, texts, batch_sizes=[size], min_iterations=batches):
            rows[latency.model]["bulk"] = _timing(latency)


def _timing(latency: Latency) -> dict[str, Any]:
    return {
        "texts": latency.batch_size,
        "batches": latency.samples,
        "p50_us": 1000 * latency.percentile(50),
        "p99_us": 1000 * latency.percentile(99),
        "texts_per_second": latency.texts_per_second,
        "spread": latency.spread,
        "noisy": latency.noisy,
    }


def _cold_start(bundle: Path, text: str) -> dict[str, Any]:
    """Returns the milliseconds from the start of an interpreter to its first prediction.

    The first start is not counted: afterwards the files are in the page cache.
    """
    code = _COLD_START.format(path=str(bundle.resolve()), text=text)
    starts = []
    for _ in range(1 + COLD_STARTS):
        begin = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            line = process.stdout.readline()
            total = time.perf_counter() - begin
        steps = np.diff(json.loads(line))
        starts.append(1000 * np.array([total, total - steps.sum(), *steps]))
    medians = np.median(starts[1:], axis=0).tolist()
    names = ("total", "interpreter", "imports", "load", "first_answer")
    return {"starts": COLD_STARTS, "median_ms": dict(zip(names, medians, strict=True))}


def _versions() -> dict[str, str]:
    """Returns the versions of the optional libraries."""
    distributions = packages_distributions()
    return {
        name: f"{distribution} {version(distribution)}"
        for name in ("openvino", "fasttext")
        for distribution in distributions.get(name, [])[:1]
    }


if __name__ == "__main__":
    run(edge_speed)
