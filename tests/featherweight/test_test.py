import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compress.config import CompressConfig
from compress.lstm.half import temporary_fp16_copy
from compress.variant import compress_run
from featherweight import test as testing
from featherweight.config import EvaluationConfig
from featherweight.data.dataset import DataConfig
from featherweight.errors import DataError, FeatherweightError, UsageError, WeightsError
from featherweight.reports import reporting
from featherweight.run import MODEL, Run
from featherweight.test import TestResult, trained_on
from featherweight.test import test as run_test
from featherweight.timing.latency import Latency


def latency(model: str, device: str, batch_size: int, threads: int) -> Latency:
    return Latency(
        model, device, "a processor", "fp32", "torch", threads, batch_size, (0.5,), (1.5,), (2.0,),
        (), (7,), (0,), 9.0, 80.0, 1_000, None, 0.1,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replaces the timing, which takes seconds; returns the arguments of each call."""
    calls: list[dict[str, Any]] = []

    def measure(contenders: Any, texts: Any, **arguments: Any) -> list[Latency]:
        calls.append({"contenders": contenders, "texts": texts} | arguments)
        return [
            latency(one.name, device, size, arguments["threads"])
            for one in contenders
            for device in arguments["devices"]
            for size in arguments["batch_sizes"]
        ]

    monkeypatch.setattr(testing, "measure", measure)
    return calls


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy of the trained run."""
    path = tmp_path / "outputs" / "tiny"
    shutil.copytree(tiny_run, path)
    return Run(path)


def outcome(run: Run, **fields: Any) -> TestResult:
    return run_test(EvaluationConfig(device="cpu", **fields), run.path)


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return path


def test_run_is_tested_on_its_own_data(run: Run) -> None:
    result = outcome(run)
    evaluation, baselines = result.evaluation, result.others
    assert (evaluation.model, evaluation.data, evaluation.split) == ("tiny", "moods", "test")
    assert len(evaluation.targets) == 12
    assert [baseline.model for baseline in baselines] == [
        "most frequent class",
        "TF-IDF + linear SVM",
    ]
    assert all((baseline.targets == evaluation.targets).all() for baseline in baselines)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_split_has_files_of_its_own_in_the_run(run: Run, split: Any) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    evaluation = outcome(run, split=split).evaluation
    saved = run.read_json(f"evaluation-{split}.json")
    assert saved == json.loads(json.dumps(evaluation.to_json()))
    assert saved["split"] == split
    lines = run.file(f"predictions-{split}.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(evaluation.targets)
    assert run.file(f"confusion_matrix-{split}.png").read_bytes().startswith(b"\x89PNG")
    after = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert {name: after[name] for name in before} == before  # those of the training stay
    assert after.keys() - before.keys() == {
        f"evaluation-{split}.json", f"predictions-{split}.csv", f"confusion_matrix-{split}.png",
        "latency.json",
    }  # fmt: skip


def test_validation_split_gives_the_scores_of_training(run: Run) -> None:
    before = run.read_json("evaluation.json")
    evaluation = outcome(run, split="validation").evaluation
    assert evaluation.confusion.tolist() == before["confusion_matrix"]
    assert evaluation.ece == pytest.approx(before["ece"])
    assert evaluation.scores == pytest.approx({name: before[name] for name in evaluation.scores})


def test_latencies_are_written_into_the_run(run: Run) -> None:
    (latency,) = outcome(run).latencies
    (record,) = run.read_json("latency.json")
    assert record == json.loads(json.dumps(latency.to_json()))
    assert (latency.model, latency.device, latency.batch_size) == ("tiny", "cpu", 32)


def test_picture_that_cannot_be_drawn_is_removed_and_the_rest_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> bytes:
        raise ValueError("no font")

    run.file("confusion_matrix-train.png").write_bytes(b"of older predictions")
    monkeypatch.setattr(reporting, "confusion_matrix", fail)
    outcome(run, split="train")
    assert run.read_json("evaluation-train.json")["split"] == "train"
    assert run.file("latency.json").is_file()
    assert not run.file("confusion_matrix-train.png").exists()
    assert any("was not drawn (ValueError: no font)" in message for message in caplog.messages)


def test_weights_and_variants_are_timed_and_the_baselines_are_not(
    run: Run, timed: list[dict[str, Any]]
) -> None:
    with temporary_fp16_copy(run.path) as variants:
        result = run_test(EvaluationConfig(device="cpu", threads=3), run.path, variants)
    (arguments,) = timed
    assert [(one.name, one.weights) for one in arguments["contenders"]] == [
        ("tiny", run.path),
        ("tiny (fp16)", variants[0]),
    ]
    assert len(arguments["texts"]) == 12
    assert (arguments["devices"], arguments["batch_sizes"], arguments["threads"]) == (
        ["cpu"],
        (32,),
        3,
    )
    assert [other.model for other in result.others] == [
        "tiny (fp16)",
        "most frequent class",
        "TF-IDF + linear SVM",
    ]
    assert [each.model for each in result.latencies] == ["tiny", "tiny (fp16)"]


def test_with_json_nothing_is_timed(run: Run, timed: list[dict[str, Any]]) -> None:
    result = outcome(run, json=True)
    assert result.latencies == []
    assert timed == []
    assert not run.file("latency.json").exists()
    assert run.read_json("evaluation-test.json")["split"] == "test"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_any_split_can_be_tested(run: Run, split: Any) -> None:
    evaluation = outcome(run, split=split).evaluation
    assert evaluation.split == split
    assert len(evaluation.targets) == {"train": 36}.get(split, 12)


def test_other_data_does_not_change_the_run(run: Run, tiny_data: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    outcome(run, data=str(tiny_data))
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_labels_of_other_data_are_matched_by_name(run: Run, tmp_path: Path) -> None:
    # In the order of this file "joy" would be first; in the model it is second.
    rows = [f"happy day number {number},joy" for number in range(20)]
    rows += [f"i cried number {number},sadness" for number in range(20)]
    evaluation = outcome(run, data=str(write(tmp_path / "two.csv", *rows))).evaluation
    assert evaluation.labels == ("anger", "joy", "sadness")
    assert set(evaluation.targets.tolist()) == {1, 2}


def numbered(tiny_data: Path, folder: Path, names: Sequence[str]) -> Path:
    """Writes a copy of the data with the position of each label in `names` instead of it."""
    folder.mkdir()
    for path in tiny_data.glob("*.csv"):
        text = path.read_text(encoding="utf-8")
        for index, name in enumerate(names):
            text = text.replace(f",{name}\n", f",{index}\n")
        (folder / path.name).write_text(text, encoding="utf-8")
    return folder


def test_ids_of_other_data_are_never_positions_in_the_model(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    names = ("sadness", "joy", "anger")
    data = numbered(tiny_data, tmp_path / "ids", names)
    with pytest.raises(DataError, match=r"ids 0, 1, 2 .* labels anger, joy, sadness: .*--labels"):
        outcome(run, data=str(data))
    expected = outcome(run).evaluation.scores
    assert outcome(run, data=str(data), labels=",".join(names)).evaluation.scores == expected
    (data / "labels.txt").write_text("\n".join(names))
    assert outcome(run, data=str(data)).evaluation.scores == expected


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_run_trained_on_named_ids_is_tested_on_its_own_data(
    run: Run, tiny_data: Path, tmp_path: Path, in_a_file: bool
) -> None:
    expected = outcome(run).evaluation.scores
    names = ("sadness", "joy", "anger")
    data = numbered(tiny_data, tmp_path / "ids", names)
    labels = "" if in_a_file else ",".join(names)
    if in_a_file:
        (data / "labels.txt").write_text("\n".join(names))
    run.write_json(
        "config.json", run.read_json("config.json") | {"data": str(data), "labels": labels}
    )
    assert outcome(run).evaluation.scores == expected


def test_a_test_split_without_labels_is_refused_in_one_line(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_data, tmp_path / "hidden")
    (folder / "test.csv").write_text("text\nwho knows\n")
    with pytest.raises(UsageError, match=r"hidden has no labels to evaluate .* --split validation"):
        outcome(run, data=str(folder))
    assert outcome(run, data=str(folder), split="validation").evaluation.split == "validation"


def test_classes_without_a_text_are_recorded(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_data, tmp_path / "joys")
    write(folder / "test.csv", "happy day,joy", "i cried,sadness")
    assert outcome(run, data=str(folder)).evaluation.missing_classes == ("anger",)


def test_a_label_that_the_model_does_not_know_is_refused(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "other.csv", *["a,joy", "b,envy"] * 10)
    with pytest.raises(DataError, match="envy"):
        outcome(run, data=str(path))


def test_other_data_of_one_class_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "one.csv", *[f"happy day {number},joy" for number in range(30)])
    with pytest.raises(FeatherweightError):
        outcome(run, data=str(path))


def test_portable_file_requires_data_flags(run: Run, tiny_data: Path) -> None:
    weights = run.file(MODEL)
    with pytest.raises(UsageError, match="--data"):
        run_test(EvaluationConfig(device="cpu"), weights)
    result = run_test(EvaluationConfig(data=str(tiny_data), device="cpu"), weights)
    assert len(result.evaluation.targets) == 12
    assert not run.file("latency.json").exists()


def test_files_can_be_named_one_by_one(run: Run, tiny_data: Path) -> None:
    evaluation = outcome(
        run, train_path=tiny_data / "train.csv", test_path=tiny_data / "validation.csv"
    ).evaluation
    assert evaluation.split == "test"
    assert len(evaluation.targets) == 12


@pytest.mark.parametrize("flag", ["val_path", "test_path"])
def test_single_file_without_training_texts_is_refused(
    run: Run, tiny_data: Path, flag: str
) -> None:
    with pytest.raises(UsageError, match="train_path"):
        outcome(run, **{flag: tiny_data / "test.csv"})


def test_missing_split_is_refused(run: Run, tiny_data: Path) -> None:
    with pytest.raises(UsageError, match="test"):
        outcome(run, train_path=tiny_data / "train.csv")


def test_changed_data_is_logged(
    run: Run, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "moods"
    shutil.copytree(tiny_data, folder)
    run.write_json("config.json", run.read_json("config.json") | {"data": str(folder)})
    with caplog.at_level(logging.WARNING, "featherweight"):
        outcome(run)
        assert caplog.messages == []
        with (folder / "test.csv").open("a", encoding="utf-8") as file:
            file.write("one text more,joy\n")
        outcome(run)
    (message,) = caplog.messages
    assert "test" in message
    assert "changed" in message


def test_the_data_flags_of_a_run_are_those_it_was_trained_with(run: Run, tiny_data: Path) -> None:
    assert trained_on(run) == DataConfig(data=str(tiny_data))
    saved = run.read_json("config.json")
    files = {"data": "bundled", "train_path": "/x/a.csv", "val_path": "/x/b.csv"}
    run.write_json("config.json", saved | files | {"text_column": "tweet"})
    assert trained_on(run) == DataConfig(
        train_path=Path("/x/a.csv"), val_path=Path("/x/b.csv"), text_column="tweet"
    )


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"data": 7}'])
def test_a_damaged_config_is_refused_in_one_line(run: Run, content: str) -> None:
    run.write_text("config.json", content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        outcome(run)


def test_a_rejected_variant_is_marked(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    variant, _ = compress_run(CompressConfig(weights=run.path, method="fp16", device="cpu"))
    facts = variant.read_json("compression.json")
    variant.write_json("compression.json", facts | {"rejected": "it loses too much"})
    result = outcome(variant)
    assert (result.evaluation.model, result.rejected) == ("tiny (fp16)", "it loses too much")
    assert "was rejected: it loses too much" in caplog.text
