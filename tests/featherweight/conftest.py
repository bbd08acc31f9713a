"""Runs to push; a made-up comparison with consistent numbers.

The numbers of each row come from one random set of predictions.
"""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featherweight.quality.evaluation import Evaluation
from featherweight.run import CONFIG, MODEL, TRANSFORMER
from tests.helpers import pushes
from tests.helpers.command_line import call, frozen

LABELS = ("sadness", "joy", "love", "anger", "fear", "surprise")
SUPPORT = (581, 695, 159, 275, 224, 66)
NOTE = "stored in half, computes in single precision on the CPU"
# model, note, accuracy, parameters, bytes, ms per text, noisy
CONTENDERS: list[tuple[str, str, float | None, int, int, float | None, bool]] = [
    ("feather", "", 0.930, 305_000, 1_236_000, 0.112, False),
    ("feather (fp16)", NOTE, 0.930, 305_000, 626_000, 0.115, True),
    ("classic", "", 0.921, 2_010_000, 8_060_000, 0.402, False),
    ("classic (fp16)", NOTE, 0.921, 2_010_000, 4_040_000, 0.398, False),
    ("most frequent class", "", None, 6, 24, 0.0021, False),
    ("TF-IDF + linear SVM", "", 0.890, 620_000, 3_900_000, 0.31, False),
    ("MiniLM, fine-tuned", "", 0.926, 22_700_000, 90_900_000, 9.8, False),
    ("BERT-base from the Hub", "with other labels", None, 109_000_000, 438_000_000, 42.0, False),
    ("bundle", "measured elsewhere", 0.929, 305_000, 640_000, None, False),
]  # fmt: skip


def evaluation(model: str, share: float | None, parameters: int, size_bytes: int) -> Evaluation:
    rng = np.random.default_rng(round(1000 * (share or 0)))
    targets = np.repeat(np.arange(len(LABELS)), SUPPORT)
    confused = rng.choice(len(LABELS), len(targets), p=np.array(SUPPORT) / sum(SUPPORT))
    answers = np.where(rng.random(len(targets)) < (share or 0), targets, confused if share else 1)
    probabilities = np.full((len(targets), len(LABELS)), 0.02)
    probabilities[np.arange(len(targets)), answers] = 0.9
    return Evaluation(
        model, "emotion", "test", LABELS, targets, probabilities, parameters, size_bytes
    )


def latency(device: str, batch_size: int, p50: float, noisy: bool) -> dict[str, Any]:
    phases = {
        f"{phase}_ms": {name: share * factor * p50 for name, factor in PERCENTILES.items()}
        for phase, share in (("encode", 0.3), ("forward", 0.7), ("total", 1.0))
    }
    return {
        "device": device, "device_name": "a processor" if device == "cpu" else "a graphics card",
        "batch_size": batch_size, "dtype": "float32", "backend": "torch", "threads": 1,
        "samples": 1_234, **phases, "texts_per_second": 1000 * batch_size / p50,
        "first_batch_ms": 7 * p50, "load_ms": 31.5, "peak_memory_bytes": 312_000_000,
        "gpu_memory_bytes": 45_000_000 if device == "cuda" else None,
        "spread": 0.31 if noisy else 0.02, "noisy": noisy,
    }  # fmt: skip


PERCENTILES = {"p50": 1.0, "p90": 1.1, "p95": 1.2, "p99": 1.5}


def verdict(better: bool | None) -> dict[str, Any]:
    words = {None: "no difference shown (n = 2000)", True: "better", False: "worse"}[better]
    difference, p = {None: (0.0005, 0.84), True: (0.011, 0.002), False: (-0.0405, 0.00001)}[better]
    return {
        "difference": difference,
        "interval": [difference - 0.0064, difference + 0.0064],
        "p_value": p / 3,
        "adjusted_p": p,
        "verdict": words,
    }


def row(
    model: str, note: str, share: float | None, parameters: int, size_bytes: int,
    ms: float | None, noisy: bool,
) -> dict[str, Any]:  # fmt: skip
    known = not model.startswith("BERT")
    answers = evaluation(model, share, parameters, size_bytes).to_json()
    scores = ("accuracy", "macro_f1", "macro_precision", "macro_recall", "weighted_f1")
    better = None if share and share > 0.925 else False
    ratios = {"size": size_bytes / 1_236_000, "speed": {}, "accuracy": None, "macro_f1": None}
    if known:
        ratios |= {"accuracy": answers["accuracy"] / 0.937, "macro_f1": answers["macro_f1"] / 0.913}
    if ms:
        ratios["speed"] = {"cpu": {"1": 0.112 / ms, "32": 0.1 / ms}, "cuda": {"1": 0.11}}
    devices = [("cpu", 1, 1.0), ("cpu", 32, 9.0)]
    if model in ("feather", "MiniLM, fine-tuned"):
        devices.append(("cuda", 1, 2.0))
    return {
        "model": model,
        "members": [model],
        "note": note,
        "parameters": parameters,
        "size_bytes": size_bytes,
        "scores": {name: answers[name] for name in scores} if known else None,
        "deviations": None,
        "intervals": answers["intervals"] if known else None,
        "ece": answers["ece"] if known else None,
        "per_class": answers["per_class"] if known else None,
        "confusion_matrix": answers["confusion_matrix"] if known else None,
        "latencies": [latency(d, b, ms * factor, noisy) for d, b, factor in devices] if ms else [],
        "ratios": ratios,
        "tests": {"accuracy": verdict(better), "macro_f1": verdict(better)}
        if known and model != "feather"
        else None,
        "robustness": [
            {"perturbation": "upper case", "accuracy": 0.9, "changed": 0.031, "n": 2000},
            {"perturbation": "typos", "accuracy": 0.71, "changed": 0.27, "n": 2000},
        ]
        if known
        else [],
    }


def made_up() -> dict[str, Any]:
    return {
        "data": {"name": "emotion", "split": "test", "n": 2000, "sha256": "0f" * 32,
                 "labels": list(LABELS)},
        "reference": "feather",
        "command": "featherweight compare outputs/feather outputs/classic --data emotion",
        "environment": {"python": "3.12.1", "gpu": None,
                        "cpu": {"model": "a processor", "flags": ["avx2", "fma"]},
                        "cores": 2, "load_average": [0.1, 0.2, 0.3]},
        "threads": 1,
        "rows": [row(*contender) for contender in CONTENDERS],
        "disagreements": [
            {"text": "i feel like a <b>king</b> & a fool", "target": "joy",
             "answers": {"feather": "joy", "classic": "sadness", "TF-IDF + linear SVM": "anger"}},
            {"text": "i am not sure what to make of such tenderness", "target": "love",
             "answers": {"feather": "joy", "classic": "love"}},
        ],
    }  # fmt: skip


@pytest.fixture(scope="session")
def shared_comparison() -> dict[str, Any]:
    return made_up()


@pytest.fixture
def comparison(shared_comparison: dict[str, Any]) -> dict[str, Any]:
    """A copy of the JSON record of a comparison."""
    return copy.deepcopy(shared_comparison)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished LSTM run."""
    return shutil.copytree(tiny_run, tmp_path / "private-place" / "tiny")


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT with random weights."""
    # Imported here because most tests do not need them.
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert") / TRANSFORMER
    words = ["[PAD]", "[UNK]", *sorted({word for text in pushes.TEXTS for word in text.split()})]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=1.0,
        id2label=dict(enumerate(pushes.LABELS)),
        label2id={name: i for i, name in enumerate(pushes.LABELS)},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def transformer_run(run: Path, fine_tuned: Path) -> Path:
    """A finished transformer run, with leftovers of its training."""
    (run / MODEL).unlink()
    (run / "tokenizer.json").unlink()
    folder = shutil.copytree(fine_tuned, run / TRANSFORMER)
    for name, entry in ((CONFIG, "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {entry: str(run / "base-model")}))
    for name in ("training_args.bin", "trainer_state.json", "modeling_bert.py", "optimizer.pt"):
        (folder / name).write_text("private")
    (folder / "checkpoint-3").mkdir()
    shutil.copy(folder / MODEL, folder / "checkpoint-3")
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def texts(here: Path) -> Path:
    path = here / "in.csv"
    path.write_text("text,id\nso happy,1\n=1+1,2\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT with random weights."""
    from transformer_eval.random_weights import build
    from transformer_eval.registry import Pretrained

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 300,
    }  # fmt: skip
    labels = ("anger", "joy", "sadness")
    build(Pretrained("acme/tiny", "bert", sizes), ["so happy", "so sad"], labels, folder)
    return folder


@pytest.fixture(scope="module")
def tiny_features(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_data: Path
) -> Path:
    """A finished run of a frozen encoder."""
    folder = tmp_path_factory.mktemp("features")
    assert call("features", *frozen(folder, tiny_bert, tiny_data), "--name", "frozen") == 0
    return folder / "outputs" / "frozen"
