import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from compress import search as searching
from compress.config import CompressConfig, target_of
from compress.search import search
from compress.size_budget import FORMATS, Budget, Shape
from featherweight import load
from featherweight.cli import main
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.reports import reporting
from featherweight.run import CHECKPOINTS, MODEL, TRANSFORMER, Run, kind
from lstm.classifier import TextClassifier
from lstm.config import preset
from transformer_eval.random_weights import build
from transformer_eval.registry import Pretrained

TARGET = "8KB"
TRIALS = 7


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws nothing, since pictures take longer than all the rest."""
    monkeypatch.setattr(reporting, "confusion_matrix", lambda _: b"a picture")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    """A copy of the trained run, to write into."""
    return Run(Path(shutil.copytree(tiny_run, tmp_path / "outputs" / "tiny")))


@pytest.fixture(scope="module")
def whole(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The variant of a search that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "tiny"
    shutil.copytree(tiny_run, path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporting, "confusion_matrix", lambda _: b"a picture")
        return searched(Run(path))


def searched(run: Run, **flags: Any) -> Run:
    given = {"target_size": TARGET, "trials": TRIALS, **flags}
    return search(CompressConfig(weights=run.path, device="cpu", **given))[0]


def interrupt(monkeypatch: pytest.MonkeyPatch, trial: int) -> None:
    """Lets Ctrl-C come in a trial, counted from 1."""
    fit, started = searching.fit, []

    def interrupted(*given: Any, **named: Any) -> Any:
        started.append(trial)
        if len(started) == trial:
            raise KeyboardInterrupt
        return fit(*given, **named)

    monkeypatch.setattr(searching, "fit", interrupted)


def record(run: Run) -> dict[str, Any]:
    """What a variant says about its search, but for the time it took."""
    facts: dict[str, Any] = run.read_json("compression.json")
    return facts["search"]


# What a search leaves


def test_the_file_keeps_the_budget_and_the_run_says_what_it_is(run: Run, whole: Run) -> None:
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


def test_the_record_holds_every_trial_and_the_best(whole: Run) -> None:
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


def test_success_leaves_no_workspace_and_the_origin_as_it_was(run: Run, whole: Run) -> None:
    assert [path.name for path in whole.path.parent.iterdir()] == [f"target-{TARGET}"]
    origin = Run(whole.path.parent.parent)
    assert origin.file(MODEL).read_bytes() == run.file(MODEL).read_bytes()
    assert origin.read_json("config.json") == run.read_json("config.json")


def test_the_verb_logs_a_line_a_trial_and_nothing_else(
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


# Cut off and gone on with


def test_ctrl_c_keeps_the_best_and_the_same_command_ends_as_if_it_had_not_come(
    run: Run, whole: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", "--weights", str(run.path), "--target_size", TARGET,
                 "--trials", str(TRIALS), "--device", "cpu"]  # fmt: skip
    with monkeypatch.context() as patched:
        interrupt(patched, trial=2)
        assert main(arguments) == 130
    path = run.path / "compressed" / f"target-{TARGET}"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"featherweight: interrupted: 1 of {TRIALS} trials are done, the best of them is {path}; "
        "go on with the same command"
    )
    assert record(Run(path))["trials"] == 1
    assert load(path, "cpu").size_bytes() <= 8_000
    assert main(arguments) == 0
    assert record(Run(path)) == record(whole)
    assert load(path, "cpu").logits(["so happy", "i miss him"]) == pytest.approx(
        load(whole.path, "cpu").logits(["so happy", "i miss him"]), abs=0
    )
    assert [it.name for it in path.parent.iterdir()] == [path.name]


def test_ctrl_c_in_the_first_trial_leaves_no_variant(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="0 of 2 trials"):
        interrupt(patched, trial=1)
        searched(run, trials=2)
    assert not (run.path / "compressed" / f"target-{TARGET}").exists()
    assert record(searched(run, trials=2))["trials"] == 2


def test_a_kill_loses_the_running_trial_and_no_more(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=3)
        searched(run, trials=3)
    folder = run.path / "compressed" / f".target-{TARGET}" / CHECKPOINTS
    # Line and file that a kill cut short, and the file of a trial that was not recorded any more.
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"op_code":5,"wor')
    (folder / "checkpoint.safetensors").write_bytes(b"half")
    (folder / "trial-99.safetensors").write_bytes(b"half")
    assert record(searched(run, trials=3))["trials"] == 3


def test_a_damaged_record_is_said_and_removed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=1)
        searched(run, trials=1)
    path = run.path / "compressed" / f".target-{TARGET}"
    (path / CHECKPOINTS / "trials.jsonl").write_text("no JSON\n{}\n")
    with pytest.raises(WeightsError, match="same command again"):
        searched(run, trials=1)
    assert not path.exists()


def test_only_the_best_file_is_kept_beside_the_record(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=4)
        searched(run)
    folder = run.path / "compressed" / f".target-{TARGET}" / CHECKPOINTS
    (kept,) = folder.glob("trial-*.safetensors")
    variant = load(run.path / "compressed" / f"target-{TARGET}", "cpu")
    assert load(kept, "cpu").logits(["so happy"]) == pytest.approx(
        variant.logits(["so happy"]), abs=0
    )


def test_more_trials_go_on_where_fewer_were_cut_off(
    run: Run, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=2)
        searched(run, trials=2)
    assert record(searched(run)) == record(whole)


def test_another_seed_starts_anew(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupt(patched, trial=2)
        searched(run, trials=2)
    started: list[Any] = []
    fit = searching.fit
    monkeypatch.setattr(searching, "fit", lambda *a, **b: (started.append(a), fit(*a, **b))[1])
    searched(run, trials=2, seed=1)
    assert [flags.seed for _, _, _, flags, *_ in started] == [1, 1]


# What a trial may be


def test_a_trial_that_falls_behind_is_given_up_and_counted(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(searching.MedianPruner, "prune", lambda _, study, trial: trial.number == 1)
    caplog.set_level(logging.INFO)
    facts = record(searched(run, trials=2))
    assert (facts["trials"], facts["pruned"], facts["too_large"]) == (2, 1, 0)
    assert "after epoch 1, given up" in caplog.messages[-1]


def test_a_file_that_turns_out_too_large_is_not_taken(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if an untrained network said nothing about the size of a trained one.
    monkeypatch.setattr(Budget, "file_bytes", lambda budget, shape: 0)
    with pytest.raises(UsageError, match="give more --trials"):
        searched(run, trials=2, target_size="2KB")
    assert not (run.path / "compressed" / "target-2KB").exists()


@pytest.mark.parametrize("storage", FORMATS)
def test_the_vocabulary_is_the_largest_that_fits(
    origin: TextClassifier, dataset: Dataset, storage: str
) -> None:
    flags = preset("feather", vocab_size=90, min_frequency=1)
    shape = Shape(storage, 16, 8, 90)
    needed = Budget(100_000, origin, flags, dataset, "target").file_bytes(shape)
    roomy = Budget(round(needed / 0.98), origin, flags, dataset, "target")
    assert roomy.largest_vocabulary(storage, 16, 8) == 90


def test_dimensions_grow_with_the_budget(origin: TextClassifier, dataset: Dataset) -> None:
    flags = preset("feather")
    small, large = (Budget(size, origin, flags, dataset, "target") for size in (12_000, 60_000))
    assert 8 <= small.widest_hidden("int8", 8) < large.widest_hidden("int8", 8)
    assert small.widest_embedding("int8") < large.widest_embedding("int8")
    assert small.widest_embedding("fp16") < small.widest_embedding("int8")


# What is refused


def test_a_target_that_cannot_be_met_says_the_smallest_that_can(run: Run) -> None:
    with pytest.raises(UsageError, match="cannot be met") as caught:
        searched(run, target_size="1KB")
    assert not (run.path / "compressed").exists() or not any((run.path / "compressed").iterdir())
    smallest = str(caught.value).rpartition(" ")[2]
    with pytest.raises(UsageError, match="cannot be met"):
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
def test_sizes_are_read_as_people_write_them(text: str, name: str, size_bytes: int) -> None:
    assert target_of(text) == (name, size_bytes)


@pytest.mark.parametrize(
    "text", ["many", "0", "0KB", "-1KB", "1e5", "200 TB", "KB", "../x", "0.0001KB", "1,5MB", "٢KB"]
)
def test_what_is_no_size_is_refused_by_its_flag(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--target_size must be .*") as caught:
        CompressConfig(target_size=text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("method", ["int8", "all", "distill"])
def test_a_search_and_a_method_exclude_each_other(method: Any) -> None:
    with pytest.raises(UsageError, match=f"--target_size .*--method {method}"):
        CompressConfig(target_size="200KB", method=method)


def test_a_transformer_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_run, tmp_path / "bert"))
    (path / MODEL).unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 48, "vocab_size": 600}  # fmt: skip
    build(Pretrained("acme/tiny", "bert", sizes), ["so happy"], ["anger", "joy", "sadness"],
          path / TRANSFORMER)  # fmt: skip
    with pytest.raises(UsageError, match=r"searches LSTMs, .* give an LSTM run"):
        searched(Run(path))
    assert not (path / "compressed").exists()


def test_without_optuna_the_way_to_get_it_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "compress.search")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["compress", "--weights", str(run.path), "--target_size", TARGET]) == 1
    assert "pip install 'featherweight[search]'" in capsys.readouterr().err
