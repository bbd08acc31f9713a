"""The sentences of docs/findings.md that hold figures, each from the record it names."""

import statistics
from collections.abc import Mapping
from typing import Any

from rendering import card
from shared.record import read_record

from featherweight.comparison.record import latency_at

Record = Mapping[str, Any]


def blocks() -> dict[str, str]:
    """Returns what stands between the markers of the findings, by their names."""
    sections = {
        "metrics": (_rare_classes, _uncertainty, _abstaining),
        "quality": (_transformer, _frozen, _linear, _larger, _more_labels),
        "speed": (_text_to_label, _transformers_speed),
        "size": (_where_bytes_are, _lstm_compressed),
        "compression": (_integers, _transformer_compressed, _taught),
        "robustness": (_as_people_type,),
    }
    data = [f"{it} [data-emotion]" for it in read_record("data-emotion")["sentences"]]
    found = {name: [sentence() for sentence in it] for name, it in sections.items()}
    return {
        name: "\n".join(f"- {sentence}" for sentence in sentences)
        for name, sentences in {"data": data, **found}.items()
    }


def _rare_classes() -> str:
    test = _shipped()["test"]
    f1 = {label: scores["f1"] for label, scores in test["per_class"].items()}
    best, worst = max(f1, key=f1.__getitem__), min(f1, key=f1.__getitem__)
    shares = {label: scores["support"] / test["n"] for label, scores in test["per_class"].items()}
    return (
        f"Accuracy hides rare classes: the bundle that ships has an accuracy of "
        f"{test['accuracy']:.3f}, and an F1 of {f1[best]:.3f} on {best} ({shares[best]:.0%} of the "
        f"texts) and {f1[worst]:.3f} on {worst} ({shares[worst]:.0%}); hence macro averages. "
        "[pretrained]"
    )


def _uncertainty() -> str:
    record = read_record("pretrained")
    recipe = record["shipped"]["recipe"]
    seeds = [row["test"]["macro_f1"] for row in record["rows"] if row["recipe"] == recipe]
    test = _shipped()["test"]
    low, high = test["intervals"]["macro_f1"]
    return (
        f"{test['n']:,} texts bound one model's macro-F1 to ± {(high - low) / 2:.3f}, and "
        f"{len(seeds)} seeds of one recipe differ by a standard deviation of "
        f"{statistics.stdev(seeds):.4f}: differences below a point need more texts than this test "
        "split has. [pretrained]"
    )


def _abstaining() -> str:
    test = _shipped()["test"]
    row = next(it for it in test["coverage"] if it["min_confidence"] == 0.9)
    return (
        f"Confidence is worth something: of the {row['share']:.0%} of the test texts that it "
        f"answers with a calibrated confidence of at least 0.9, {row['accuracy']:.1%} are right, "
        f"where of all it is {test['accuracy']:.1%}. [pretrained]"
    )


def _transformer() -> str:
    contest = read_record("versus-transformers")["comparison"]
    lstm, bert = _row(contest, "feather"), _row(contest, "minilm")
    test = bert["tests"]["macro_f1"]
    low, high = test["interval"]
    _require(test["verdict"].startswith("no difference"))
    return (
        f"A fine-tuned MiniLM ({bert['parameters'] / 1e6:.1f} M parameters) reaches macro-F1 "
        f"{_spread(bert)} over {len(bert['members'])} seeds, the LSTM "
        f"({lstm['parameters'] / 1e6:.2f} M) {_spread(lstm)}: {test['difference']:+.4f} "
        f"[{low:+.4f}, {high:+.4f}], {test['verdict']}. [versus-transformers]"
    )


def _frozen() -> str:
    contest = read_record("versus-transformers")["comparison"]
    frozen = _row(contest, "minilm-frozen")["scores"]["macro_f1"]
    svm = _row(contest, "TF-IDF + linear SVM")["scores"]["macro_f1"]
    _require(frozen < svm)
    return (
        f"Its embeddings alone do not know emotions: frozen, with a logistic regression on top, it "
        f"reaches {frozen:.4f}, less than TF-IDF with a linear SVM ({svm:.4f}). "
        "[versus-transformers]"
    )


def _linear() -> str:
    parts = []
    for name in ("emotion", "sst2", "trec6"):
        rows = read_record(f"quality-{name}")["rows"]
        lstm = statistics.mean(_f1(row) for row in rows if row["model"] == "feather")
        svm = next(_f1(row) for row in rows if "SVM" in row["model"])
        parts.append(f"{lstm - svm:+.3f} on {name}")
    return (
        "Always try the linear model: in macro-F1 the LSTM with its defaults gains "
        f"{', '.join(parts)} over TF-IDF with a linear SVM. [quality-emotion, quality-sst2, "
        "quality-trec6]"
    )


def _larger() -> str:
    rows = read_record("quality-emotion")["rows"]
    sizes = {row["model"]: row["test"]["parameters"] for row in rows}
    f1 = {
        name: statistics.mean(_f1(row) for row in rows if row["model"] == name)
        for name in ("classic", "feather")
    }
    _require(f1["classic"] <= f1["feather"])
    return (
        f"Larger did not help: three layers on wide embeddings ({sizes['classic'] / 1e6:.1f} M "
        f"parameters) reach {f1['classic']:.4f}, one bidirectional layer on narrow ones "
        f"({sizes['feather'] / 1e6:.2f} M) {f1['feather']:.4f}. [quality-emotion]"
    )


def _text_to_label() -> str:
    contest = read_record("compression-feather")["comparison"]
    torch, onnx = (
        latency_at(_row(contest, name), "cpu", 1) for name in ("feather-0", "feather-0 (onnx)")
    )
    assert torch and onnx
    before, after = (1000 * it["total_ms"]["p50"] for it in (torch, onnx))
    _require(before > 2 * after)
    return (
        f"For one text most of the time of a tiny network in PyTorch is not the network: the same "
        f"weights take {before:.0f} µs there and {after:.0f} µs in ONNX Runtime. "
        "[compression-feather]"
    )


def _transformers_speed() -> str:
    contest = read_record("versus-transformers")["comparison"]
    lstm = _row(contest, "feather")
    parts = []
    for name in ("minilm", "distilbert", "bert-base"):
        ratios = [_ms(_row(contest, name), size) / _ms(lstm, size) for size in (1, 32)]
        parts.append(f"{name} {ratios[0]:,.0f} and {ratios[1]:,.0f} times as long")
    return (
        f"In PyTorch on one thread, for one text and for a batch of 32, {'; '.join(parts)} as "
        "the LSTM. Batches help the LSTM more, since its matrices are small. [versus-transformers]"
    )


def _where_bytes_are() -> str:
    (int8,) = (it for it in _variants("feather") if it["method"] == "int8")
    before = int8["touched"]["before"]
    share = before["embedding"]["parameters"] / sum(it["parameters"] for it in before.values())
    return (
        f"Embeddings are the model: they are {share:.0%} of the parameters of `feather`, so what "
        "makes it small is fewer words and fewer bits a word. [compression-feather]"
    )


def _lstm_compressed() -> str:
    contest = read_record("compression-feather")["comparison"]
    parts = []
    for made in _variants("feather"):
        if made["method"] in ("int8", "int4", "prune+int8"):
            test = _row(contest, f"feather-0 ({made['method']})")["tests"]["macro_f1"]
            _require(test["verdict"].startswith("no difference"))
            parts.append(
                f"`{made['method']}` {made['ratio']:.3f} of the bytes at {test['difference']:+.4f}"
            )
    return (
        f"An LSTM gives bytes away for nothing: {', '.join(parts)} of macro-F1, no difference of "
        "which could be shown. [compression-feather]"
    )


def _integers() -> str:
    contest = read_record("compression-feather")["comparison"]
    fp32, int8 = (_ms(_row(contest, f"feather-0 ({it})"), 1) for it in ("onnx", "onnx-int8"))
    return (
        "Computing in integers is another matter than storing them: in ONNX Runtime it takes "
        f"{int8 / fp32:.2f} times as long as fp32 for one text of the LSTM, and the answer then "
        "depends on what else is in the batch, so the bundle stores integers and computes in fp32. "
        "[compression-feather]"
    )


def _transformer_compressed() -> str:
    contest = read_record("compression-minilm")["comparison"]
    origin = _row(contest, "minilm-0")
    parts = []
    for method in ("onnx-int8", "int8", "bf16"):
        row = _row(contest, f"minilm-0 ({method})")
        speed = [_ms(origin, size) / _ms(row, size) for size in (1, 32)]
        parts.append(
            f"`{method}` {speed[0]:.1f} and {speed[1]:.1f} times as fast "
            f"({row['tests']['macro_f1']['difference']:+.4f})"
        )
    lstm = _row(contest, "minilm-0 (distill)")
    transformers = [it for it in contest["rows"] if it["parameters"] > 10 * lstm["parameters"]]
    _require(min(_ms(it, 32) for it in transformers if it["latencies"]) > 10 * _ms(lstm, 32))
    return (
        f"A transformer gains more: for one text and for 32, {'; '.join(parts)} in macro-F1. "
        "It stays far slower than the LSTM. [compression-minilm]"
    )


def _taught() -> str:
    record = read_record("distillation")
    alone, taught = (
        {
            split: statistics.mean(
                row[split]["macro_f1"] for row in record["rows"] if row["model"] == name
            )
            for split in ("validation", "test")
        }
        for name in ("feather", "feather, distilled")
    )
    seeds = len({row["seed"] for row in record["rows"]})
    seeds = len({row["seed"] for row in record["rows"]})
    return (
        "What an ensemble answers teaches a network of the same size what its labels teach, and "
        f"little more: {taught['validation'] - alone['validation']:+.4f} of macro-F1 on "
        f"validation, {taught['test'] - alone['test']:+.4f} on the test split, means of {seeds} "
        "seeds. [distillation]"
    )


def _more_labels() -> str:
    record = read_record("pretrained")
    f1 = {
        name: [row["test"]["macro_f1"] for row in record["rows"] if row["recipe"] == name]
        for name in record["recipes"]
    }
    gain = statistics.mean(f1["more labels"]) - statistics.mean(f1["plain"])
    _require(gain > 0)
    return (
        f"More labels help: {record['further']['n']:,} further labeled tweets gave {gain:+.4f} of "
        f"macro-F1 on the test split, means of {len(f1['plain'])} seeds. [pretrained]"
    )


def _as_people_type() -> str:
    rows = {it["perturbation"]: it for it in read_record("pretrained")["shipped"]["robustness"]}
    plain = _shipped()["test"]["accuracy"]
    parts = [f"{name} {it['accuracy'] - plain:+.3f}" for name, it in rows.items()]
    return (
        f"A normalizer makes case, punctuation and emoji harmless; misspelt words it cannot know. "
        f"Accuracy of the bundle that ships: {', '.join(parts)}. [pretrained]"
    )


def _require(still: bool) -> None:
    """Keeps words from outliving the figures that they were written for.

    Raises:
        ValueError: The records contradict them.
    """
    if not still:
        raise ValueError("the records contradict a finding: write it anew")


def _shipped() -> Record:
    return card.shipped(read_record("pretrained"))


def _variants(origin: str) -> list[Record]:
    variants: list[Record] = read_record(f"compression-{origin}")["variants"]
    return variants


def _row(contest: Record, model: str) -> Record:
    row: Record = next(it for it in contest["rows"] if it["model"] == model)
    return row


def _f1(row: Record) -> float:
    return float(row["test"]["macro_f1"])


def _spread(row: Record) -> str:
    return f"{row['scores']['macro_f1']:.4f} ± {row['deviations']['macro_f1']:.4f}"


def _ms(row: Record, batch_size: int) -> float:
    latency = latency_at(row, "cpu", batch_size)
    assert latency
    return float(latency["total_ms"]["p50"])
