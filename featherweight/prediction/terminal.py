"""Answers on the terminal: a table with aligned columns, or a JSON list, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence

from featherweight.classifier import Classifier
from featherweight.prediction.answers import Answer, answers
from featherweight.prediction.bad_rows import Row
from featherweight.prediction.cells import to_json
from featherweight.prediction.columns import free_columns, prediction_columns
from featherweight.prediction.config import PredictConfig
from featherweight.reports.terminal import printable

MAX_WIDTH = 40  # characters of a text in the table
_MAX_LISTED = 10

AnsweredText = tuple[str, Answer]


def print_answers(
    classifier: Classifier, batches: Iterable[Sequence[Row]], config: PredictConfig, width: int
) -> None:
    """Prints the answers for rows with the column "text".

    Args:
        classifier: The model.
        batches: The rows.
        config: The options of the output.
        width: Characters for the texts in the table; longer texts take `MAX_WIDTH`.
    """
    columns = prediction_columns(classifier.labels, config.known_words)
    columns = ("text", *free_columns(columns, ("text",), config.answer_prefix, "the text"))
    counted = config.known_words or not config.json
    answered = _answered(classifier, batches, config.min_confidence, counted)
    if config.json:
        _print_json(columns, answered)
    else:
        labels = (columns[2], *map(printable, classifier.labels))
        widths = [
            min(max(len("text"), width), MAX_WIDTH),
            len(columns[1]),
            max(map(len, labels)),
            *map(len, columns[3:]),
        ]
        _print_table(columns, widths, answered)


def table_text(text: str) -> str:
    """Returns a text in one printable line of at most `MAX_WIDTH` characters."""
    line = printable(text)
    return line if len(line) <= MAX_WIDTH else f"{line[: MAX_WIDTH - 1]}…"


def _answered(
    classifier: Classifier,
    batches: Iterable[Sequence[Row]],
    min_confidence: float,
    known_words: bool,
) -> Iterator[AnsweredText]:
    for rows in batches:
        texts = [row.text for row in rows]
        found = answers(classifier, classifier.labels, texts, known_words)
        for row, answer in zip(rows, found, strict=True):
            yield str(row.values["text"]), answer.if_confident(min_confidence)


def _print_json(columns: Sequence[str], answered: Iterable[AnsweredText]) -> None:
    separator = "["
    for text, answer in answered:
        values = dict(zip(columns, (text, *answer.values()), strict=False))
        print(separator, to_json(values, ascii_only=True), sep="", end="")
        separator = ", "
    print("[]" if separator == "[" else "]")


def _print_table(
    columns: Sequence[str], widths: Sequence[int], answered: Iterable[AnsweredText]
) -> None:
    _print_line(columns, widths)
    _print_line(["-" * width for width in widths], widths)
    unknown: list[str] = []  # positions of texts without a known word
    num_unknown = 0
    for number, (text, answer) in enumerate(answered, 1):
        _print_line([table_text(text), *_cells(answer)][: len(columns)], widths)
        if answer.known_words == 0:
            num_unknown += 1
            if num_unknown <= _MAX_LISTED:
                unknown.append(str(number))
    if unknown:
        more = num_unknown - len(unknown)
        listed = ", ".join(unknown) + (f" and {more:,} more" if more else "")
        print(f"no known word in text {listed}: the prediction says nothing about the text")


def _cells(answer: Answer) -> list[str]:
    label, name, confidence, known_words = answer.values()
    return [
        "" if label is None else str(label),
        printable(name or ""),
        "" if confidence is None else f"{confidence:.4f}",
        "" if known_words is None else str(known_words),
    ]


def _print_line(cells: Sequence[str], widths: Sequence[int]) -> None:
    cells = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    print("  ".join(cells).rstrip())
