import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.config import CompressConfig
from compress.variant import compress_run, halved
from featherweight import load, reporting, testing
from featherweight.cli import main
from featherweight.config import EvaluationConfig
from featherweight.errors import FeatherweightError, UsageError
from featherweight.run import CHECKPOINT, MODEL, Run, newest_run

TEXTS = ["so happy 😂", "i miss my dog", "zzz"]

both = pytest.mark.parametrize("method", ["fp16", "bf16"])


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws nothing, since pictures take longer than all the rest."""
    monkeypatch.setattr(reporting, "confusion_matrix", lambda _: b"a picture")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy of the trained run, to write into."""
    path = tmp_path / "outputs" / "tiny"
    shutil.copytree(tiny_run, path)
    return Run(path)


@pytest.fixture(scope="module")
def broken(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its variant, and runs that something is wrong with."""
    outputs = tmp_path_factory.mktemp("outputs")
    for name in ("tiny", "gone", "cut-off"):
        shutil.copytree(tiny_run, outputs / name)
    compressed(outputs / "tiny")
    gone = Run(outputs / "gone")
    gone.write_json("config.json", gone.read_json("config.json") | {"data": "moods-that-were"})
    (outputs / "cut-off" / CHECKPOINT).write_bytes(b"state")
    return outputs


def compressed(weights: Path | None, method: Any = "fp16", **flags: Any) -> Run:
    return compress_run(CompressConfig(weights=weights, method=method, device="cpu", **flags))[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@both
def test_a_variant_is_a_run_inside_its_origin(run: Run, method: str) -> None:
    before = contents(run.path)
    variant = compressed(run.path, method)
    assert variant.path == run.path / "compressed" / method
    assert {path.name for path in variant.path.iterdir()} == {
        MODEL, "config.json", "tokenizer.json", "labels.json", "data.json", "environment.json",
        "compression.json", "evaluation.json", "predictions.csv", "confusion_matrix.png",
        "README.md",
    }  # fmt: skip
    for name in ("config.json", "tokenizer.json", "labels.json", "data.json"):
        assert variant.read_json(name) == run.read_json(name)
    assert {name: data for name, data in contents(run.path).items() if name in before} == before
    assert variant.finished
    classifier = load(variant.path, "cpu")
    assert classifier.name == f"tiny ({method})"
    assert classifier.logits(TEXTS) == pytest.approx(load(run.path, "cpu").logits(TEXTS), abs=0.1)


@both
def test_both_are_measured_on_the_validation_texts(run: Run, method: Any) -> None:
    config = CompressConfig(weights=run.path, method=method, device="cpu")
    variant, evaluations = compress_run(config)
    names = [f"tiny ({method})", "tiny"]
    assert [(one.model, one.split, len(one.targets)) for one in evaluations] == [
        (name, "validation", 12) for name in names
    ]
    saved = variant.read_json("evaluation.json")
    assert saved == json.loads(json.dumps(evaluations[0].to_json()))
    assert evaluations[1].scores["accuracy"] == run.read_json("evaluation.json")["accuracy"]
    card = variant.file("README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {names[0]}\n")


@both
def test_the_record_says_what_was_done_to_what(run: Run, method: str) -> None:
    variant = compressed(run.path, method)
    record = variant.read_json("compression.json")
    before, after = run.file(MODEL).stat().st_size, variant.file(MODEL).stat().st_size
    assert record.pop("seconds") >= 0
    assert record.pop("ratio") == pytest.approx(after / before)
    assert record.pop("flags")["method"] == method
    touched = record.pop("touched")
    for when, formats in (("before", ["fp32"]), ("after", [method])):
        assert set(touched[when]) == {"embedding", "LSTM", "linear"}
        assert all(kind["formats"] == formats for kind in touched[when].values())
        numbers = sum(kind["parameters"] for kind in touched[when].values())
        assert numbers == load(run.path, "cpu").num_parameters()
    assert record == {
        "method": method,
        "rejected": "",
        "size_bytes": {"before": before, "after": after},
        "gain": "size everywhere, speed on CUDA only",
        "origin": {
            "name": "tiny",
            "sha256": hashlib.sha256(run.file(MODEL).read_bytes()).hexdigest(),
        },
    }


def test_a_variant_can_be_tested_and_asked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    variant = compressed(run.path)
    # With json nothing is timed.
    result = testing.test(EvaluationConfig(device="cpu", json=True), variant.path)
    assert (result.evaluation.model, result.evaluation.split) == ("tiny (fp16)", "test")
    assert variant.read_json("evaluation.json")["split"] == "test"
    assert run.read_json("evaluation.json")["split"] == "validation"
    arguments = ["--weights", str(variant.path), "--device", "cpu", "--json"]
    assert main(["predict", *arguments, *TEXTS]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [each["text"] for each in answers] == TEXTS
    assert main(["test", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "tiny (fp16)"


def test_without_weights_the_newest_run_is_compressed_and_stays_the_newest(run: Run) -> None:
    variant = compressed(None, output_dir=run.path.parent)
    assert variant.path.parent.parent == run.path
    assert newest_run(run.path.parent).path == run.path


def test_an_existing_variant_is_replaced_only_when_asked(run: Run) -> None:
    variant = compressed(run.path)
    variant.write_text("README.md", "mine")
    before = contents(variant.path)
    with pytest.raises(UsageError, match="--overwrite") as caught:
        compressed(run.path)
    assert "\n" not in str(caught.value)
    assert contents(variant.path) == before
    compressed(run.path, overwrite=True)
    assert variant.file("README.md").read_text(encoding="utf-8").startswith("# tiny (fp16)")
    assert contents(variant.path).keys() == before.keys()
    # The other method has a place of its own.
    compressed(run.path, "bf16")
    assert sorted(path.name for path in variant.path.parent.iterdir()) == ["bf16", "fp16"]


def test_no_flag_is_named_that_the_verb_does_not_have(run: Run) -> None:
    compressed(run.path)
    with pytest.raises(UsageError) as caught:
        compressed(run.path)
    assert "--name" not in str(caught.value)
    assert "--resume" not in str(caught.value)


def test_a_foreign_folder_is_not_overwritten(run: Run) -> None:
    place = run.path / "compressed" / "fp16"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not overwritten"):
        compressed(run.path, overwrite=True)
    assert contents(place) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("nowhere", "nowhere"),
        ("tiny/model.safetensors", "run directory"),
        ("tiny/compressed/fp16", "already"),
        ("gone", "moods-that-were"),
        ("cut-off", "--resume"),
        (None, "no finished run"),
    ],
)
def test_what_cannot_be_compressed_is_refused_and_nothing_is_written(
    broken: Path, weights: str | None, says: str
) -> None:
    before = contents(broken)
    with pytest.raises(FeatherweightError, match=says) as caught:
        compressed(broken / weights if weights else None, "bf16", output_dir=broken / "tiny")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert contents(broken) == before
    assert not (broken / "gone" / "compressed").exists()


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("full_at", ["compression.json", MODEL, "confusion_matrix.png"])
def test_a_full_disk_leaves_the_older_variant_or_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, older: bool, full_at: str
) -> None:
    if older:
        compressed(run.path).write_text("README.md", "the older one")
    before = contents(run.path)
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        compressed(run.path, overwrite=older)
    assert contents(run.path) == before


def test_test_gets_an_fp16_copy_that_leaves_no_trace(run: Run) -> None:
    before = contents(run.path)
    with halved(run.path) as (path,):
        half = load(path, "cpu")
        assert half.name == "tiny (fp16)"
        assert half.size_bytes() < load(run.path).size_bytes()
        compressed(run.path)
        assert np.array_equal(
            half.logits(TEXTS), load(run.path / "compressed" / "fp16", "cpu").logits(TEXTS)
        )
        shutil.rmtree(run.path / "compressed")
    assert not path.exists()
    assert contents(run.path) == before


@both
def test_what_is_half_already_gets_no_copy(run: Run, method: str) -> None:
    with halved(compressed(run.path, method).path) as paths:
        assert paths == []


def test_a_portable_file_gets_a_copy_too(run: Run) -> None:
    with halved(run.file(MODEL)) as paths:
        assert [load(path, "cpu").name for path in paths] == ["tiny (fp16)"]


def test_the_verb_shows_both_and_where_the_variant_is(
    run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["compress", "--weights", str(run.path), "--method", "bf16", "--device", "cpu"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("tiny")]
    assert [row.partition("  ")[0] for row in rows] == ["tiny (bf16)", "tiny"]
    assert out.endswith(f"run: {run.path / 'compressed' / 'bf16'}\n")
    assert any("on the CPU it computes in fp32" in message for message in caplog.messages)
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") >= 1
