"""Values of the template of docs/findings.md.

Some sentences hold only for the present records: `_require` refuses others.
"""

import statistics
from operator import itemgetter
from typing import Any

from rendering.card import shipped
from rendering.readme import by_model, milliseconds
from shared.record import read_record

from featherweight.comparison.record import Record
from featherweight.quality.significance import SIGNIFICANCE

SVM = "TF-IDF + linear SVM"


def values() -> dict[str, Any]:
    """Returns the values of the template of docs/findings.md.

    Raises:
        ValueError: A record contradicts a sentence of the template.
    """
    return {
        "data_sentences": read_record("data-emotion")["sentences"],
        **pretrained(),
        **transformers(),
        **presets(),
        **compressed_lstm(),
        **compressed_transformer(),
        **distillation(),
    }


def pretrained() -> dict[str, Any]:
    """Returns figures of the bundle that ships and of its recipe."""
    record = read_record("pretrained")
    test = shipped(record)["test"]
    classes = [
        {"label": label, "f1": scores["f1"], "share": scores["support"] / test["n"]}
        for label, scores in test["per_class"].items()
    ]
    worst, *_, best = sorted(classes, key=itemgetter("f1"))
    f1 = {
        recipe["name"]: [row["macro_f1"] for row in recipe["tests"]]
        for recipe in by_model(record["rows"], "recipe")
    }
    recipe_f1 = f1[record["shipped"]["recipe"]]
    low, high = test["intervals"]["macro_f1"]
    confident = next(row for row in test["coverage"] if row["min_confidence"] == 0.9)
    label_gain = statistics.mean(f1["more labels"]) - statistics.mean(f1["plain"])
    changes = {
        row["perturbation"]: row["accuracy"] - test["accuracy"]
        for row in record["shipped"]["robustness"]
    }
    normalized = [changes[name] for name in ("upper case", "punctuation and contractions", "emoji")]
    _require(confident["accuracy"] > test["accuracy"], "confidence is informative")
    _require(label_gain > 0, "more labels help")
    _require(max(map(abs, normalized)) < 0.005, "the normalizer makes them harmless")
    return {
        "bundle": test,
        "best": best,
        "worst": worst,
        "half_interval": (high - low) / 2,
        "recipe_f1": recipe_f1,
        "seed_deviation": statistics.stdev(recipe_f1),
        "confident": confident,
        "further_labels": record["further"]["n"],
        "label_gain": label_gain,
        "accuracy_changes": changes,
    }


def transformers() -> dict[str, Any]:
    """Returns quality and time of transformers compared with the LSTM."""
    rows = _rows("versus-transformers")
    lstm, minilm = rows["feather"], rows["minilm"]
    frozen_f1, svm_f1 = (rows[name]["scores"]["macro_f1"] for name in ("minilm-frozen", SVM))
    _require(_equal(minilm), "no difference between MiniLM and the LSTM is shown")
    _require(frozen_f1 < svm_f1, "frozen embeddings are worse than the linear SVM")
    return {
        "lstm": lstm,
        "minilm": minilm,
        "frozen_f1": frozen_f1,
        "svm_f1": svm_f1,
        "slowdowns": {
            name: [milliseconds(rows[name], size) / milliseconds(lstm, size) for size in (1, 32)]
            for name in ("minilm", "distilbert", "bert-base")
        },
    }


def presets() -> dict[str, Any]:
    """Returns the macro-F1 of the presets, and their gain over the linear model by data set."""
    models = {data: _quality(data) for data in ("emotion", "sst2", "trec6")}
    gains = {data: row["feather"]["f1"] - row[SVM]["f1"] for data, row in models.items()}
    emotion = models["emotion"]
    _require(emotion["classic"]["f1"] <= emotion["feather"]["f1"], "a larger LSTM does not help")
    return {"lstm_gains": gains, "presets": emotion}


def compressed_lstm() -> dict[str, Any]:
    """Returns figures of `feather` and its variants."""
    rows = _rows("compression-feather")
    variants = {row["method"]: row for row in read_record("compression-feather")["variants"]}
    modules = variants["int8"]["touched"]["before"]
    parameters = {name: module["parameters"] for name, module in modules.items()}
    torch, onnx, integers = (
        milliseconds(rows[f"feather-0{method}"], 1) for method in ("", " (onnx)", " (onnx-int8)")
    )
    methods = ("int8", "int4", "prune+int8")
    compressed = {method: rows[f"feather-0 ({method})"] for method in methods}
    _require(torch > 2 * onnx, "most of the time in PyTorch is overhead")
    _require(all(map(_equal, compressed.values())), "compression loses no quality")
    return {
        "torch_us": 1000 * torch,
        "onnx_us": 1000 * onnx,
        "integer_slowdown": integers / onnx,
        "embedding_share": parameters["embedding"] / sum(parameters.values()),
        "lstm_variants": [
            {
                "method": method,
                "ratio": variants[method]["ratio"],
                "difference": row["tests"]["macro_f1"]["difference"],
            }
            for method, row in compressed.items()
        ],
    }


def compressed_transformer() -> dict[str, Any]:
    """Returns speed and quality of MiniLM's variants."""
    rows = _rows("compression-minilm")
    lstm = rows["minilm-0 (distill)"]
    fastest = min(
        milliseconds(row, 32)
        for row in rows.values()
        if row["parameters"] > 10 * lstm["parameters"] and row["latencies"]
    )
    _require(fastest > 10 * milliseconds(lstm, 32), "the transformer remains ten times slower")
    compressed = {name: rows[f"minilm-0 ({name})"] for name in ("onnx-int8", "int8", "bf16")}
    return {
        "transformer_variants": [
            {
                "method": method,
                "speedups": [
                    milliseconds(rows["minilm-0"], size) / milliseconds(row, size)
                    for size in (1, 32)
                ],
                "difference": row["tests"]["macro_f1"]["difference"],
            }
            for method, row in compressed.items()
        ]
    }


def distillation() -> dict[str, Any]:
    """Returns what teachers add to the macro-F1 of `feather`."""
    alone, distilled = by_model(read_record("distillation")["rows"])
    gain = {
        split: _mean_f1(distilled[evaluations]) - _mean_f1(alone[evaluations])
        for split, evaluations in (("validation", "validations"), ("test", "tests"))
    }
    _require(max(map(abs, gain.values())) < 0.01, "distillation adds little")
    return {"distillation_gain": gain, "distillation_seeds": len(alone["tests"])}


def _require(holds: bool, finding: str) -> None:
    """Refuses a record that contradicts a sentence.

    Raises:
        ValueError: The finding no longer holds.
    """
    if not holds:
        raise ValueError(f"a record contradicts the finding that {finding}: rewrite its sentence")


def _equal(row: Record) -> bool:
    """Returns whether no difference of macro-F1 from the reference is shown."""
    return bool(row["tests"]["macro_f1"]["adjusted_p"] >= SIGNIFICANCE)


def _rows(name: str) -> dict[str, Record]:
    return {row["model"]: row for row in read_record(name)["comparison"]["rows"]}


def _quality(data: str) -> dict[str, dict[str, float]]:
    return {
        model["name"]: {
            "f1": _mean_f1(model["tests"]),
            "parameters": model["tests"][0]["parameters"],
        }
        for model in by_model(read_record(f"quality-{data}")["rows"])
    }


def _mean_f1(evaluations: list[Record]) -> float:
    return statistics.mean(evaluation["macro_f1"] for evaluation in evaluations)
