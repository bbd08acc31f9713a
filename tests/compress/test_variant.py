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
from compress.lstm.methods import METHODS
from compress.transformer import methods
from compress.variant import compress_run
from featherweight import load
from featherweight import test as testing
from featherweight.cli import main
from featherweight.config import EvaluationConfig
from featherweight.errors import FeatherweightError, UsageError
from featherweight.reports import reporting
from featherweight.run import CHECKPOINT, MODEL, Run, newest_run
from lstm.classifier import TextClassifier
from tests.helpers.variants import compressed, contents

TEXTS = ["so happy 😂", "i miss my dog", "zzz"]

pytestmark = pytest.mark.usefixtures("undrawn")
both = pytest.mark.parametrize("method", ["fp16", "bf16"])


@pytest.fixture(scope="module")
def broken(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its variant, and unusable runs."""
    outputs = tmp_path_factory.mktemp("outputs")
    for name in ("tiny", "gone", "cut-off"):
        shutil.copytree(tiny_run, outputs / name)
    compressed(outputs / "tiny")
    gone = Run(outputs / "gone")
    gone.write_json("config.json", gone.read_json("config.json") | {"data": "moods-that-were"})
    (outputs / "cut-off" / CHECKPOINT).write_bytes(b"state")
    return outputs


@both
def test_a_variant_is_a_run_inside_its_origin_evaluated_on_validation(
    run: Run, method: Any
) -> None:
    before = contents(run.path)
    config = CompressConfig(weights=run.path, method=method, device="cpu")
    variant, evaluations = compress_run(config)
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
    names = [f"tiny ({method})", "tiny"]
    assert [(one.model, one.split, len(one.targets)) for one in evaluations] == [
        (name, "validation", 12) for name in names
    ]
    saved = variant.read_json("evaluation.json")
    assert saved == json.loads(json.dumps(evaluations[0].to_json()))
    assert evaluations[1].scores["accuracy"] == run.read_json("evaluation.json")["accuracy"]
    card = variant.file("README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {names[0]}\n")
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


def test_a_variant_can_be_tested_and_can_predict(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = compressed(run.path)
    # With json, no latency is measured.
    result = testing.test(EvaluationConfig(device="cpu", json=True), variant.path)
    assert (result.evaluation.model, result.evaluation.split) == ("tiny (fp16)", "test")
    assert variant.read_json("evaluation-test.json")["split"] == "test"
    assert variant.read_json("evaluation.json")["split"] == "validation"
    assert run.read_json("evaluation.json")["split"] == "validation"
    arguments = ["--weights", str(variant.path), "--device", "cpu", "--json"]
    assert main(["predict", *arguments, *TEXTS]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert [prediction["text"] for prediction in predictions] == TEXTS
    assert main(["test", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "tiny (fp16)"


def test_the_default_is_the_newest_run(run: Run) -> None:
    variant = compressed(None, output_dir=run.path.parent)
    assert variant.path.parent.parent == run.path
    assert newest_run(run.path.parent).path == run.path


def test_an_existing_variant_is_replaced_only_with_overwrite(run: Run) -> None:
    variant = compressed(run.path)
    variant.write_text("README.md", "mine")
    before = contents(variant.path)
    with pytest.raises(UsageError, match="--overwrite") as caught:
        compressed(run.path)
    assert "\n" not in str(caught.value)
    # `compress` does not have these flags.
    assert not {"--name", "--resume"} & set(str(caught.value).split())
    assert contents(variant.path) == before
    compressed(run.path, overwrite=True)
    assert variant.file("README.md").read_text(encoding="utf-8").startswith("# tiny (fp16)")
    assert contents(variant.path).keys() == before.keys()
    # Each method has its own folder.
    compressed(run.path, "bf16")
    assert sorted(path.name for path in variant.path.parent.iterdir()) == ["bf16", "fp16"]


def test_a_foreign_folder_is_not_overwritten(run: Run) -> None:
    place = run.path / "compressed" / "fp16"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not overwritten"):
        compressed(run.path, overwrite=True)
    assert contents(place) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("nowhere", "nowhere"),
        ("tiny/model.safetensors", "run directory"),
        ("tiny/compressed/fp16", "already"),
        ("gone", "moods-that-were"),
        ("cut-off", "--resume"),
        (None, "no finished run"),
    ],
)
def test_unusable_runs_are_refused_and_nothing_is_written(
    broken: Path, weights: str | None, message: str
) -> None:
    before = contents(broken)
    with pytest.raises(FeatherweightError, match=message) as caught:
        compressed(broken / weights if weights else None, "bf16", output_dir=broken / "tiny")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert contents(broken) == before
    assert not (broken / "gone" / "compressed").exists()


@pytest.mark.parametrize(
    ("older", "full_at"),
    [(False, "compression.json"), (True, MODEL), (True, "predictions.csv")],
)
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


def test_picture_that_cannot_be_drawn_leaves_a_finished_variant(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(_: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(reporting, "confusion_matrix", interrupt)
    with pytest.raises(KeyboardInterrupt, match="is finished"):
        compressed(run.path)
    variant = run.path / "compressed" / "fp16"
    assert load(variant, "cpu").labels == ("anger", "joy", "sadness")
    assert (variant / "README.md").is_file()
    assert not (variant / "confusion_matrix.png").exists()


def test_the_command_prints_both_scores_and_the_path(
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


# Every method


@pytest.mark.parametrize("method", [name for name in METHODS if "onnx" not in name])
def test_a_loaded_variant_gives_the_same_logits(
    run: Run, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    variants: list[TextClassifier] = []
    save = TextClassifier.save

    def watched(classifier: TextClassifier, path: Path) -> None:
        variants.append(classifier)
        save(classifier, path)

    monkeypatch.setattr(TextClassifier, "save", watched)
    variant = compressed(run.path, method, retraining_epochs=1, vocabulary=0.8)
    loaded = load(variant.path, "cpu")
    assert isinstance(loaded, TextClassifier)
    assert np.array_equal(loaded.logits(TEXTS), variants[0].logits(TEXTS))
    assert loaded.name == f"tiny ({method})"
    assert variant.read_json("tokenizer.json") == json.loads(loaded.tokenizer.to_str())
    record = variant.read_json("compression.json")
    assert record["method"] == method
    assert record["size_bytes"]["after"] == variant.file(MODEL).stat().st_size
    parts = record["touched"]["after"].values()
    assert {name for part in parts for name in part["formats"]} == set(loaded.storage.values())
    assert sum(part["not_zero"] for part in parts) == sum(
        int(parameter.count_nonzero()) for parameter in loaded.module.parameters()
    )


@pytest.mark.parametrize("method", ["int8", "distill", "onnx"])
def test_a_variant_cannot_be_compressed(broken: Path, method: Any) -> None:
    before = contents(broken)
    with pytest.raises(UsageError, match="compress the run it was made from") as caught:
        compressed(broken / "tiny" / "compressed" / "fp16", method)
    assert "\n" not in str(caught.value)
    assert contents(broken) == before


def test_a_method_that_does_not_fit_is_refused_with_a_list_of_those_that_do(bert_run: Run) -> None:
    before = contents(bert_run.path)
    with pytest.raises(UsageError) as caught:
        compressed(bert_run.path, "qat-int4")
    assert str(caught.value) == (
        f"--method qat-int4 does not fit {bert_run.path}: "
        f"choose one of {', '.join(methods.METHODS)}"
    )
    assert contents(bert_run.path) == before


def test_texts_that_training_dropped_are_dropped_again(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "moods"
    shutil.copytree(tiny_data, data)
    leaked = (data / "test.csv").read_text(encoding="utf-8").partition("\n")[2]
    with (data / "train.csv").open("a", encoding="utf-8") as file:
        file.write(leaked)
    run.write_json(
        "config.json", run.read_json("config.json") | {"data": str(data), "drop_leaks": True}
    )
    # With labels only, distillation repeats the plain training.
    variant = compressed(run.path, "distill", alpha=1.0)
    origin = load(run.path, "cpu").logits(TEXTS)
    assert np.array_equal(load(variant.path, "cpu").logits(TEXTS), origin)
