import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import all_methods
from compress.all_methods import compress_all
from compress.config import CompressConfig
from compress.lstm import methods
from compress.origin import Origin
from compress.variant import make_variant
from compress.workspace import RESUME
from featherweight.cli import main
from featherweight.comparison import compare, plots
from featherweight.errors import MissingExtraError, UsageError
from featherweight.reports import reporting
from featherweight.run import COMPRESSION, MODEL, Run
from featherweight.timing.latency import Contender, Latency

# Some methods of the LSTM; all of them have their own tests.
METHODS = {name: methods.METHODS[name] for name in ("fp16", "int8", "qat", "prune", "distill")}
FILES = {"compression_report.json", "comparison_report.txt", "compression_comparison.png"}
Record = dict[str, Any]


def measure(contenders: Sequence[Contender], texts: Sequence[str], **options: Any) -> list[Latency]:
    """Replaces `measure`, which takes seconds: later contenders are faster."""
    return [
        Latency(
            one.name, "cpu", "a processor", "fp32", "torch", 1, size,
            (1 / number,) * 3, (1 / number,) * 3, (2 / number,) * 3,
            (), (7, 7, 7), (0, 1, 2), 9.0, 80.0, 1_000, None, 0.1,
        )
        for number, one in enumerate(contenders, start=1)
        for size in options["batch_sizes"]
    ]  # fmt: skip


def patch(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(all_methods, "methods_for", lambda *_: METHODS)
    patched.setattr(compare, "measure", measure)
    patched.setattr(reporting, "confusion_matrix", lambda _: b"a picture")
    patched.setattr(plots, "trade_off", lambda _: b"a picture")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch)


def flags(run: Path, **changes: Any) -> CompressConfig:
    changes = {"retraining_epochs": 1} | changes
    return CompressConfig(weights=run, method="all", device="cpu", **changes)


@pytest.fixture(scope="module")
def made(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with all its variants, and the printed report; for reading only."""
    path = tmp_path_factory.mktemp("outputs") / "tiny"
    shutil.copytree(tiny_run, path)
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patched:
        patch(patched)
        printed = compress_all(flags(path, max_f1_drop=1.0))
    torch.use_deterministic_algorithms(deterministic)
    return path, printed


@pytest.fixture
def run(made: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it, to write into."""
    return Path(shutil.copytree(made[0], tmp_path / "outputs" / "tiny"))


def change(run: Path, method: str, **values: Any) -> None:
    variant = Run(run / "compressed" / method)
    variant.write_json(COMPRESSION, variant.read_json(COMPRESSION) | values)


def reported(run: Path) -> Record:
    record: Record = Run(run / "compressed" / "report").read_json("compression_report.json")
    return record


# The report


def test_every_method_leaves_a_variant_and_is_reported(made: tuple[Path, str]) -> None:
    path, printed = made
    names = {folder.name for folder in (path / "compressed").iterdir()}
    assert {name for name in names if name[0] != "."} == {*METHODS, "report"}
    assert all((path / "compressed" / method / MODEL).is_file() for method in METHODS)
    report = path / "compressed" / "report"
    assert {file.name for file in report.iterdir()} == FILES
    text = (report / "comparison_report.txt").read_text(encoding="utf-8")
    head, end = printed.rsplit("\n\n", 1)
    assert end == f"report: {report}"
    assert text.startswith(f"{head}\n\ntiny ")
    record = reported(path)
    assert record.keys() == {"comparison", "variants", "skipped", "advice"}
    assert record["skipped"] == {}
    assert [variant["method"] for variant in record["variants"]] == [*METHODS]
    models = [row["model"] for row in record["comparison"]["rows"]]
    assert models[: len(METHODS) + 1] == ["tiny", *(f"tiny ({method})" for method in METHODS)]
    assert record["comparison"]["data"]["split"] == "validation"
    assert record["advice"] in text
    assert all(model in text for model in models)
    assert (report / "compression_comparison.png").read_bytes() == b"a picture"


def test_the_text_report_has_scores_by_class(made: tuple[Path, str]) -> None:
    text = (made[0] / "compressed" / "report" / "comparison_report.txt").read_text(encoding="utf-8")
    rows = reported(made[0])["comparison"]["rows"]
    for row, table in zip(rows, text.split("\n\n")[-len(rows) :], strict=True):
        head, _, *lines = table.splitlines()
        assert head.removeprefix(row["model"]).split() == ["precision", "recall", "F1", "support"]
        assert [line.split() for line in lines] == [
            [label, *(f"{scores[name]:.4f}" for name in ("precision", "recall", "f1")), "4"]
            for label, scores in row["per_class"].items()
        ]


def test_sizes_in_the_report_are_those_of_the_files(made: tuple[Path, str]) -> None:
    record = reported(made[0])
    sizes = {row["model"]: row["size_bytes"] for row in record["comparison"]["rows"]}
    for method, variant in zip(METHODS, record["variants"], strict=True):
        size = (made[0] / "compressed" / method / MODEL).stat().st_size
        assert sizes[f"tiny ({method})"] == variant["size_bytes"]["after"] == size
        assert variant["flags"]["method"] == method


def test_the_rankings_of_the_report_are_sorted(made: tuple[Path, str]) -> None:
    record, printed = reported(made[0]), made[1]
    found = {row["model"]: row for row in record["comparison"]["rows"]}
    ranked = {
        title: line.removeprefix(f"{title}: ").split(", ")
        for line in printed.splitlines()
        for title in ("by size", "by speed", "by macro F1")
        if line.startswith(f"{title}: ")
    }
    assert all(set(order) == set(found) for order in ranked.values())
    sizes = [found[model]["size_bytes"] for model in ranked["by size"]]
    assert sizes == sorted(sizes)
    # See `measure`.
    assert ranked["by speed"] == [*found][::-1]
    scores = [found[model]["scores"]["macro_f1"] for model in ranked["by macro F1"]]
    assert scores == sorted(scores, reverse=True)


def test_advice_names_the_smallest(made: tuple[Path, str]) -> None:
    sizes = {m: (made[0] / "compressed" / m / MODEL).stat().st_size for m in METHODS}
    assert f"Take tiny ({min(sizes, key=sizes.__getitem__)}): " in made[1]


# Existing variants


def test_existing_variants_are_kept(
    made: tuple[Path, str], run: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(all_methods, "make_variant", None)
    # The command prints the same report.
    assert main(["compress", "--weights", str(run), "--method", "all", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.replace(str(run), str(made[0])) == made[1] + "\n"


def test_only_missing_variants_are_made(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(run / "compressed" / "int8")
    change(run, "fp16", marked=True)
    with caplog.at_level(logging.INFO, "featherweight"):
        compress_all(flags(run))
    messages = [message for message in caplog.messages if message.startswith(f"{run}: ")]
    assert messages == [f"{run}: int8"]
    kept = ", ".join(name for name in METHODS if name != "int8")
    message = f"{kept}: exist already and are kept; --overwrite makes them again"
    assert message in caplog.messages
    assert (run / "compressed" / "int8" / MODEL).is_file()
    record = reported(run)
    assert [variant.get("marked", False) for variant in record["variants"]] == [
        name == "fp16" for name in METHODS
    ]


def test_overwrite_makes_all_again(run: Path) -> None:
    for method in METHODS:
        change(run, method, marked=True)
    compress_all(flags(run, overwrite=True))
    record = reported(run)
    assert not any("marked" in variant for variant in record["variants"])


# Skipped methods


def failing(errors: Mapping[str, BaseException]) -> Any:
    """Replaces `make_variant`: some methods raise an error."""

    def make(origin: Origin, config: CompressConfig) -> Any:
        if config.method in errors:
            raise errors[config.method]
        return make_variant(origin, config)

    return make


def test_failing_methods_are_reported_and_the_others_continue(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for method in ("int8", "distill", "qat"):
        shutil.rmtree(run / "compressed" / method)
    errors = {"int8": MissingExtraError("torchao", "transformers"),
              "distill": UsageError("--method distill needs --student")}  # fmt: skip
    monkeypatch.setattr(all_methods, "make_variant", failing(errors))
    printed = compress_all(flags(run))
    reasons = {method: str(error) for method, error in errors.items()}
    for method, reason in reasons.items():
        assert f"\nskipped {method}: {reason}\n" in printed
        assert f"{method}: skipped: {reason}" in caplog.messages
        assert f"tiny ({method})" not in printed
        assert not (run / "compressed" / method).exists()
    assert (run / "compressed" / "qat" / MODEL).is_file()
    record = reported(run)
    assert record["skipped"] == reasons
    assert [variant["method"] for variant in record["variants"]] == [
        name for name in METHODS if name not in errors
    ]
    assert record["advice"].startswith("Take tiny (")


def test_the_advice_without_any_variant(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(run / "compressed")
    errors = dict.fromkeys(METHODS, UsageError("not today"))
    monkeypatch.setattr(all_methods, "make_variant", failing(errors))
    printed = compress_all(flags(run))
    assert "Keep tiny: no variant was made that is worth its loss." in printed
    record = reported(run)
    assert record["skipped"] == dict.fromkeys(METHODS, "not today")
    assert record["variants"] == []


def test_a_foreign_folder_is_not_overwritten(run: Path) -> None:
    shutil.rmtree(run / "compressed" / "int8")
    (run / "compressed" / "int8").mkdir()
    (run / "compressed" / "int8" / "notes.txt").write_text("mine")
    assert "skipped int8: " in compress_all(flags(run))
    assert [path.name for path in (run / "compressed" / "int8").iterdir()] == ["notes.txt"]


def test_other_errors_of_a_method_are_raised(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(run / "compressed" / "int8")
    monkeypatch.setattr(all_methods, "make_variant", failing({"int8": ZeroDivisionError()}))
    with pytest.raises(ZeroDivisionError):
        compress_all(flags(run))


def test_ctrl_c_says_how_to_resume_and_keeps_finished_variants(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("int8", "prune"):
        shutil.rmtree(run / "compressed" / method)
    monkeypatch.setattr(all_methods, "make_variant", failing({"prune": KeyboardInterrupt()}))
    assert main(["compress", "--weights", str(run), "--method", "all", "--device", "cpu"]) == 130
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == f"featherweight: interrupted: {RESUME}"
    assert (run / "compressed" / "int8" / MODEL).is_file()
    monkeypatch.setattr(all_methods, "make_variant", make_variant)
    assert "tiny (prune" in compress_all(flags(run))


# Advice


def test_the_advice_if_all_are_rejected_is_to_keep_the_run(run: Path) -> None:
    for method in METHODS:
        change(run, method, rejected="it loses too much")
    printed = compress_all(flags(run))
    assert "Keep tiny: no variant was made that is worth its loss." in printed
    assert "Take" not in printed
    assert "tiny (int8, rejected)" in printed


def test_a_rejected_variant_is_not_advised(made: tuple[Path, str], run: Path) -> None:
    first = made[1].partition("Take tiny (")[2].partition(")")[0]
    change(run, first, rejected="it loses too much")
    second = compress_all(flags(run)).partition("Take tiny (")[2].partition(")")[0]
    assert second in METHODS
    assert second != first
    sizes = {m: (run / "compressed" / m / MODEL).stat().st_size for m in METHODS if m != first}
    assert second == min(sizes, key=sizes.__getitem__)


# Refused runs


def test_what_cannot_be_compressed_is_refused(run: Path, tmp_path: Path) -> None:
    messages = {
        run / "compressed" / "fp16": "already", run / MODEL: "run directory",
        tmp_path / "nowhere": "nowhere",
    }  # fmt: skip
    for path, message in messages.items():
        with pytest.raises(UsageError, match=message) as caught:
            compress_all(flags(path))
        assert "\n" not in str(caught.value)
    assert not (run / "compressed" / "fp16" / "compressed").exists()
