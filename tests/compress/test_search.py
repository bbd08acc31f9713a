import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compress import search as searching
from compress.config import CompressConfig, parse_size
from compress.origin import Origin
from compress.search import search
from compress.size_budget import FORMATS, Budget, Shape
from compress.workspace import RESUME
from featherweight import load
from featherweight.cli import main
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.run import CHECKPOINTS, MODEL, Run, kind
from lstm.classifier import TextClassifier
from lstm.config import preset

TARGET = "8KB"
TRIALS = 4

pytestmark = pytest.mark.usefixtures("undrawn", "few_random_trials")


@pytest.fixture(scope="module")
def few_random_trials() -> Iterator[None]:
    """Lets TPE and the median rule start after two trials."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(searching, "_RANDOM", 2)
        yield


@pytest.fixture(scope="module")
def whole(
    tiny_run: Path, tmp_path_factory: pytest.TempPathFactory, undrawn: None, few_random_trials: None
) -> Run:
    """The variant of an uninterrupted search."""
    path = tmp_path_factory.mktemp("whole") / "tiny"
    return searched(Run(Path(shutil.copytree(tiny_run, path))))


def searched(run: Run, **flags: Any) -> Run:
    flags = {"target_size": TARGET, "trials": TRIALS, **flags}
    return search(CompressConfig(weights=run.path, device="cpu", **flags))[0]


def interrupt(monkeypatch: pytest.MonkeyPatch, trial: int) -> None:
    """Interrupts a trial, counted from 1."""
    fit, started = searching.fit, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        started.append(trial)
        if len(started) == trial:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(searching, "fit", interrupted)


def record(run: Run) -> dict[str, Any]:
    """The record of the search in `compression.json`."""
    facts: dict[str, Any] = run.read_json("compression.json")
    return facts["search"]


# Results


def test_the_file_fits_and_the_run_describes_it(run: Run, whole: Run) -> None:
    assert whole.path.name == f"target-{TARGET}"
    classifier = load(whole.path, "cpu")
    assert isinstance(classifier, TextClassifier)
    assert classifier.name == f"tiny (target-{TARGET})"
    size_bytes = whole.file(MODEL).stat().st_size
    assert classifier.size_bytes() == size_bytes <= 8_000
    config = whole.read_json("config.json")
    assert kind(config) == "lstm"
    assert config["embedding_dim"] == classifier.module.embedding.embedding_dim
    assert config["hidden_dim"] == classifier.config.hidden_dim
    assert classifier.tokenizer.get_vocab_size() <= run.read_json("config.json")["vocab_size"]
    assert whole.read_json("tokenizer.json") == json.loads(classifier.tokenizer.to_str())
    facts = whole.read_json("compression.json")
    assert facts["method"] == f"target-{TARGET}"
    assert facts["size_bytes"]["after"] == size_bytes
    assert facts["seconds"] > 0
    assert facts["origin"]["name"] == "tiny"
    assert "rejected" in facts


def test_the_record_counts_trials_and_has_the_best(whole: Run) -> None:
    facts = record(whole)
    assert facts["trials"] == TRIALS
    assert facts["pruned"] + facts["too_large"] < TRIALS
    best, config = facts["best"], whole.read_json("config.json")
    assert best["storage"] in FORMATS
    assert {name: config[name] for name in ("embedding_dim", "hidden_dim")} == {
        name: best[name] for name in ("embedding_dim", "hidden_dim")
    }
    scores = whole.read_json("evaluation.json")
    assert scores["split"] == "validation"
    assert best["macro_f1"] == pytest.approx(scores["macro_f1"])


def test_trials_start_from_the_word_vectors_of_the_origin(run: Run) -> None:
    run.write_json("config.json", run.read_json("config.json") | {"vectors": "builtin"})
    models = {}
    for vectors in ("builtin", "none"):
        run.write_json("config.json", run.read_json("config.json") | {"vectors": vectors})
        found = searched(run, trials=1, overwrite=True)
        assert found.read_json("config.json")["vectors"] == vectors
        models[vectors] = found.file(MODEL).read_bytes()
    assert models["builtin"] != models["none"]


def test_success_leaves_no_workspace_and_does_not_change_the_origin(run: Run, whole: Run) -> None:
    assert [path.name for path in whole.path.parent.iterdir()] == [f"target-{TARGET}"]
    origin = Run(whole.path.parent.parent)
    assert origin.file(MODEL).read_bytes() == run.file(MODEL).read_bytes()
    assert origin.read_json("config.json") == run.read_json("config.json")


def test_the_command_logs_one_line_per_trial(
    run: Run, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arguments = ["compress", "--weights", str(run.path), "--target_size", TARGET, "--trials", "2",
                 "--device", "cpu"]  # fmt: skip
    assert main(arguments) == 0
    assert [message.partition(":")[0] for message in caplog.messages] == ["trial 1/2", "trial 2/2"]
    assert all("bytes, macro-F1 0." in message for message in caplog.messages)
    printed = capfd.readouterr()
    assert printed.out.endswith(f"run: {run.path / 'compressed' / f'target-{TARGET}'}\n")
    assert "optuna" not in printed.err.lower()
    assert main(arguments) == 2
    assert "--overwrite" in capfd.readouterr().err


# Interruption


def test_an_interrupted_search_keeps_the_best_and_resumes_to_the_same_result(
    run: Run, whole: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", "--weights", str(run.path), "--target_size", TARGET,
                 "--trials", str(TRIALS), "--device", "cpu"]  # fmt: skip
    with monkeypatch.context() as patched:
        interrupt(patched, trial=3)
        assert main(arguments) == 130
    path = run.path / "compressed" / f"target-{TARGET}"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"featherweight: interrupted: 2 of {TRIALS} trials are finished, the best is {path}; "
        f"{RESUME}"
    )
    assert record(Run(path))["trials"] == 2
    variant = load(path, "cpu")
    assert variant.size_bytes() <= 8_000
    # Only the file of the best trial is kept.
    folder = path.parent / f".{path.name}" / CHECKPOINTS
    (file,) = folder.glob("trial-*.safetensors")
    assert load(file, "cpu").logits(["so happy"]) == pytest.approx(
        variant.logits(["so happy"]), abs=0
    )
    # What a killed process may leave: incomplete files, and the file of an unrecorded trial.
    with (folder / "trials.jsonl").open("a") as lines:
        lines.write('{"op_code":5,"wor')
    (folder / "checkpoint.safetensors").write_bytes(b"half")
    (folder / "trial-99.safetensors").write_bytes(b"half")
    assert main(arguments) == 0
    assert record(Run(path)) == record(whole)
    assert load(path, "cpu").logits(["so happy", "i miss him"]) == pytest.approx(
        load(whole.path, "cpu").logits(["so happy", "i miss him"]), abs=0
    )
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]


def test_ctrl_c_in_the_first_trial_leaves_no_variant_and_a_damaged_record_is_removed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="0 of 2 trials"):
        interrupt(patched, trial=1)
        searched(run, trials=2)
    assert not (run.path / "compressed" / f"target-{TARGET}").exists()
    # A damaged record is removed.
    path = run.path / "compressed" / f".target-{TARGET}"
    (path / CHECKPOINTS / "trials.jsonl").write_text("no JSON\n{}\n")
    with pytest.raises(WeightsError, match="same command again"):
        searched(run, trials=2)
    assert not path.exists()


def test_an_interrupted_search_resumes_with_more_trials(
    run: Run, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=3)
        searched(run, trials=3)
    assert record(searched(run)) == record(whole)


def test_another_seed_starts_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=2)
        searched(run, trials=2)
    seeds: list[int] = []
    fit = searching.fit

    def watched(*args: Any, **kwargs: Any) -> Any:
        seeds.append(args[3].seed)
        return fit(*args, **kwargs)

    monkeypatch.setattr(searching, "fit", watched)
    searched(run, trials=2, seed=1)
    assert seeds == [1, 1]


# Trials


def test_a_bad_trial_is_stopped_early_and_counted(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(searching.MedianPruner, "prune", lambda _, study, trial: trial.number == 1)
    caplog.set_level(logging.INFO)
    facts = record(searched(run, trials=2))
    assert (facts["trials"], facts["pruned"], facts["too_large"]) == (2, 1, 0)
    assert "stopped after epoch 1" in caplog.messages[-1]


def test_a_file_that_is_too_large_is_not_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if every untrained network fitted.
    monkeypatch.setattr(Budget, "file_bytes", lambda budget, shape: 0)
    with pytest.raises(UsageError, match="give more --trials"):
        searched(run, trials=2, target_size="2KB")
    assert not (run.path / "compressed" / "target-2KB").exists()


@pytest.mark.parametrize("storage", FORMATS)
def test_the_vocabulary_is_the_largest_that_fits(
    tiny_run: Path, origin: TextClassifier, dataset: Dataset, storage: str
) -> None:
    run = Origin(Run(tiny_run), origin, dataset)
    flags = preset("feather", vocab_size=90, min_frequency=1)
    shape = Shape(storage, 16, 8, 90)
    needed = Budget(100_000, run, flags, "target").file_bytes(shape)
    roomy = Budget(round(needed / 0.98), run, flags, "target")
    assert roomy.max_vocab_size(storage, 16, 8) == 90


def test_dimensions_grow_with_the_budget(
    tiny_run: Path, origin: TextClassifier, dataset: Dataset
) -> None:
    run, flags = Origin(Run(tiny_run), origin, dataset), preset("feather")
    small, large = (Budget(size, run, flags, "target") for size in (16_000, 64_000))
    assert 8 <= small.max_hidden_dim("int8", 8) < large.max_hidden_dim("int8", 8)
    assert small.max_embedding_dim("int8") < large.max_embedding_dim("int8")
    assert small.max_embedding_dim("fp16") < small.max_embedding_dim("int8")


# Refused options


def test_a_target_that_is_too_small_names_the_minimum(run: Run) -> None:
    with pytest.raises(UsageError, match="is too small") as caught:
        searched(run, target_size="1KB")
    assert not (run.path / "compressed").exists() or not any((run.path / "compressed").iterdir())
    smallest = str(caught.value).rpartition(" ")[2]
    with pytest.raises(UsageError, match="is too small"):
        searched(run, target_size=str(int(smallest) - 1))
    variant = searched(run, target_size=smallest, trials=1)
    assert load(variant.path, "cpu").size_bytes() <= int(smallest)


@pytest.mark.parametrize(
    ("text", "name", "size_bytes"),
    [
        ("200KB", "200KB", 200_000), ("0.3 MB", "0.3MB", 300_000), ("150000", "150000", 150_000),
        ("200KiB", "200KiB", 204_800), ("1.5mib", "1.5MiB", 1_572_864), (" 10 kb ", "10KB", 10_000),
        ("512B", "512B", 512),
    ],
)  # fmt: skip
def test_sizes_are_parsed(text: str, name: str, size_bytes: int) -> None:
    assert parse_size(text) == (name, size_bytes)


@pytest.mark.parametrize(
    "text", ["many", "0", "0KB", "-1KB", "1e5", "200 TB", "KB", "../x", "0.0001KB", "1,5MB", "٢KB"]
)
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--target_size must be .*") as caught:
        CompressConfig(target_size=text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("method", ["int8", "all", "distill"])
def test_a_search_and_a_method_exclude_each_other(method: Any) -> None:
    with pytest.raises(UsageError, match=f"--target_size .*--method {method} exclude"):
        CompressConfig(target_size="200KB", method=method)


def test_a_transformer_is_refused(bert_run: Run) -> None:
    with pytest.raises(UsageError, match=r"--target_size needs an LSTM run"):
        searched(bert_run)
    assert not bert_run.file("compressed").exists()


def test_a_missing_optuna_is_named_with_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "compress.search")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["compress", "--weights", str(run.path), "--target_size", TARGET]) == 1
    assert "pip install 'featherweight[search]'" in capsys.readouterr().err
