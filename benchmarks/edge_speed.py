"""A bundle beside its peers on one core: one text, many texts, bytes, quality; and its cold start.

All compute on one thread, each in a process of its own and in turns, from texts to the names of
labels. Runs that are in the folder already are taken as they are; a peer that is not there is left
out, and the record says why.

$ pip install -c constraints.txt openvino fasttext-numpy2-wheel  # two of the peers
$ python benchmarks/edge_speed.py --data dair-ai/emotion --runs outputs/versus
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from rendering import edge_table
from shared import peers
from shared.record import RESULTS, write_record
from shared.runs import variant

from featherweight.classifier import Classifier, IntArray
from featherweight.data.dataset import DataConfig, Dataset, load_dataset
from featherweight.errors import FeatherweightError
from featherweight.quality.evaluation import evaluate
from featherweight.run import Run, atomic_open
from featherweight.timing.latency import Contender, Latency, measure
from transformer_eval.test_transformer import timed_only

ROOT = Path(__file__).parent.parent
PRETRAINED = ROOT / "edge" / "pretrained" / "emotion.zip"
BUNDLE, OPENVINO, LSTM = "bundle", "bundle's graph in OpenVINO", "its LSTM in PyTorch"
YARDSTICK = "bert-base"

SAME_NETWORK = (BUNDLE, OPENVINO, LSTM)

ONE_TEXT_BATCHES = 50  # at least: whoever is quick gets thousands
BATCHES = 20  # of the whole split
FEW_TEXTS, FEW_BATCHES = 128, 5  # for whoever takes seconds for so many
PADDED, HEAVY_PADDED = 256, 32  # texts of like length in a batch of PyTorch
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
    """Who is measured.

    Attributes:
        function: Of `peers`; makes it.
        arguments: What the function takes besides the device.
        heavy: Whether a whole split at once would take minutes.
        answers: Whether it has weights worth asking.
        note: What a reader must know.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    heavy: bool = False
    answers: bool = True
    note: str = ""

    def contender(self, name: str) -> Contender:
        """Returns how a process that times it gets it."""
        return Contender(name, factory=f"shared.peers:{self.function}", arguments=self.arguments)

    def classifier(self) -> Classifier:
        """Returns what answers.

        Raises:
            ImportError: Its library is not installed.
            FeatherweightError: Its run is not there.
        """
        asked: peers.TwoStepClassifier = getattr(peers, self.function)("cpu", **self.arguments)
        return asked.answering


def edge_speed(
    data: str,
    runs: Path,
    labels: str = "",
    bundle: Path = PRETRAINED,
    origin: Path | None = None,
    transformer: str = "minilm",
) -> None:
    """Measures, and writes results/edge-speed.json and edge_speed.png.

    Args:
        data: Hub id, folder or file.
        runs: Folder of the runs.
        labels: Label names in id order, where the data does not name its integers.
        bundle: Folder or zip file that export wrote.
        origin: The run that the bundle was made from; without it: the one of its name in runs.
        transformer: The fine-tuned one; its run with seed 0 is in runs.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    core = _on_one_core()
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    test = dataset.split("test")
    facts = peers.bundle("cpu", str(bundle)).answering.bundle.metadata
    fine_tuned, with_more = runs / f"{transformer}-0", runs / "more" / f"{transformer}-0"
    with TemporaryDirectory() as folder:
        makers = {
            BUNDLE: lambda: Peer(
                "bundle", {"path": str(bundle)}, note=_more_labels(facts, dataset)
            ),
            OPENVINO: lambda: Peer("openvino_bundle", {"path": str(bundle)}),
            LSTM: lambda: _run(origin or runs / str(facts["name"])),
            "fastText": lambda: _fasttext(dataset, Path(folder) / "fasttext.bin"),
            "TF-IDF + linear SVM": lambda: Peer("svm", {"data": data, "labels": labels}),
            f"{transformer} in PyTorch": lambda: _run(fine_tuned, heavy=True),
            f"{transformer}, more labels": lambda: replace(
                _run(with_more, heavy=True),
                note=_more_labels({"data": Run(with_more).read_json("data.json")}, dataset),
            ),
            f"{transformer}, onnx-int8": lambda: _run(variant(fine_tuned, "onnx-int8"), heavy=True),
            YARDSTICK: lambda: _only_timed(dataset, Path(folder) / YARDSTICK),
        }
        found, rows, left_out = _asked(makers, dataset)
        one, stages = _one_text(found, test.texts, str(bundle))
        bulk = _bulk(found, test.texts)
    for name, row in rows.items():
        row |= {"one": _timing(one[name]), "bulk": _timing(bulk[name])}
        if YARDSTICK in one:
            row["faster"] = one[YARDSTICK].percentile(50) / one[name].percentile(50)
    figures = {
        "core": core,
        "bundle": {"name": facts["name"], "graph": facts["graph"]["dtype"]},
        "rows": list(rows.values()),
        "left_out": left_out,
        "stages_us": stages,
        "cold_start": _cold_start(bundle, test.texts[0]),
        "peers": _versions(),
    }
    print(write_record("edge-speed", dataset.identity(), figures))
    with atomic_open(RESULTS / "edge_speed.png", "wb") as file:
        file.write(edge_table.picture(figures))


def _on_one_core() -> int | None:
    """Keeps this process and all that it starts on one core, with one thread; returns which."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):  # as on macOS
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def _more_labels(facts: Mapping[str, Any], dataset: Dataset) -> str:
    """Returns what is to be said of a model that learned from more than the training split."""
    labels, official = facts["data"]["splits"]["train"]["n"], len(dataset.train)
    if labels == official:
        return ""
    return f"learned from {labels:,} labeled texts, {labels - official:,} of them beyond the split"


def _run(path: Path, heavy: bool = False) -> Peer:
    batch_size = HEAVY_PADDED if heavy else PADDED
    return Peer("trained", {"weights": str(path), "batch_size": batch_size}, heavy)


def _fasttext(dataset: Dataset, path: Path) -> Peer:
    peers.train_fasttext(dataset.train, path)
    return Peer("fasttext", {"path": str(path), "labels": dataset.labels})


def _only_timed(dataset: Dataset, folder: Path) -> Peer:
    note = timed_only(YARDSTICK, dataset, folder, "cpu").note
    return replace(_run(folder, heavy=True), answers=False, note=note)


def _asked(
    makers: Mapping[str, Callable[[], Peer]], dataset: Dataset
) -> tuple[dict[str, Peer], dict[str, dict[str, Any]], dict[str, str]]:
    """Makes the peers and lets them answer the test split.

    Returns:
        The peers that are there, the row of each, and why the others are not.
    """
    test = dataset.split("test")
    found: dict[str, Peer] = {}
    rows: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    labels: dict[str, IntArray] = {}
    for name, make in makers.items():
        try:
            peer = make()
            classifier = peer.classifier()
        except (ImportError, FeatherweightError) as error:
            left_out[name] = str(error)
            logger.warning("%s is left out: %s", name, error)
            continue
        logger.info("%s: answering %d texts", name, len(test))
        evaluation = evaluate(classifier, test, dataset.name) if peer.answers else None
        found[name] = peer
        rows[name] = {
            "model": name,
            "backend": classifier.backend,
            "dtype": classifier.dtype,
            "size_bytes": classifier.size_bytes(),
            "evaluation": evaluation and evaluation.to_json(),
            "note": peer.note,
        }
        if evaluation and name in SAME_NETWORK:
            labels[name] = evaluation.predictions
            rows[name]["same_labels"] = float((labels[name] == labels[BUNDLE]).mean())
            rows[name]["batch_sensitivity"] = _by_neighbors(classifier, test.texts[:FEW_TEXTS])
    return found, rows, left_out


def _by_neighbors(classifier: Classifier, texts: Sequence[str]) -> float:
    """Returns the most that a probability changes with the texts that are asked together."""
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts])
    return float(np.abs(classifier.predict_proba(texts) - alone).max())


def _one_text(
    found: Mapping[str, Peer], texts: Sequence[str], bundle: str
) -> tuple[dict[str, Latency], dict[str, float]]:
    """Times one text after the other; returns where the bundle spends the median, too, in us."""
    parts = {name: Peer(name, {"path": bundle}) for name in ("tokenizing", "graph")}
    contenders = [peer.contender(name) for name, peer in {**found, **parts}.items()]
    timed = measure(contenders, texts, batch_sizes=[1], min_iterations=ONE_TEXT_BATCHES)
    one = {it.model: it for it in timed}
    tokenizing = 1000 * one["tokenizing"].percentile(50, "encode")
    graph = 1000 * one["graph"].percentile(50, "forward")
    rest = 1000 * one[BUNDLE].percentile(50) - tokenizing - graph
    return one, {"tokenizing": tokenizing, "graph": graph, "rest": rest}


def _bulk(found: Mapping[str, Peer], texts: Sequence[str]) -> dict[str, Latency]:
    """Times all the texts at once, and fewer where that would take minutes."""
    timed = []
    for heavy, size, batches in ((False, len(texts), BATCHES), (True, FEW_TEXTS, FEW_BATCHES)):
        contenders = [it.contender(name) for name, it in found.items() if it.heavy == heavy]
        timed += measure(contenders, texts, batch_sizes=[size], min_iterations=batches)
    return {it.model: it for it in timed}


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
    """Returns milliseconds from the start of a fresh interpreter to its first answer, and parts.

    Its files are in the memory of the system, for one start before is not counted.
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
    """Returns what the optional peers were computed with."""
    distributions = packages_distributions()
    return {
        name: f"{found} {version(found)}"
        for name in ("openvino", "fasttext")
        for found in distributions.get(name, [])[:1]
    }


if __name__ == "__main__":
    auto_cli(edge_speed, as_positional=False)
