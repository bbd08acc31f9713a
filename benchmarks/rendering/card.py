"""Values of the template of edge/pretrained/README.md, the card of the bundle that ships."""

from typing import Any

from rendering.readme import by_model
from shared.record import read_record

from featherweight.comparison.record import Record


def values() -> dict[str, Any]:
    """Returns the values of the template of the card."""
    record = read_record("pretrained")
    bundle = shipped(record)
    f1 = {label: scores["f1"] for label, scores in bundle["test"]["per_class"].items()}
    recipe = record["recipes"][record["shipped"]["recipe"]]
    return {
        **record,
        "bundle": bundle,
        "weakest": sorted(f1.items(), key=lambda item: item[1])[:2],
        "confusions": confusions(bundle["test"])[:3],
        "recipe": recipe,
        "learned": recipe["data"]["splits"]["train"]["n"],
        "official": record["data"]["splits"]["train"]["n"],
        "recipe_rows": [
            {
                **model,
                "labels": record["recipes"][model["name"]]["data"]["splits"]["train"]["n"],
                "ships": model["name"] == record["shipped"]["recipe"],
            }
            for model in by_model(record["rows"], "recipe")
        ],
    }


def shipped(record: Record) -> Record:
    """Returns the row of the bundle that ships."""
    chosen = [record["shipped"][key] for key in ("recipe", "seed")]
    row: Record = next(row for row in record["rows"] if [row["recipe"], row["seed"]] == chosen)
    return row


def confusions(test: Record) -> list[tuple[int, str, str]]:
    """Returns (count, true label, predicted label) of each error, the most frequent first."""
    labels = list(test["per_class"])
    counts = (
        (count, labels[true], labels[predicted])
        for true, row in enumerate(test["confusion_matrix"])
        for predicted, count in enumerate(row)
        if true != predicted
    )
    return sorted(counts, reverse=True)
