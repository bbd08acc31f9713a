"""Pushes of compressed runs: each loads from the pushed files by the program in its card."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from compress.onnx.conversion import dynamic, export
from featherweight.errors import WeightsError
from featherweight.hub.push import contents
from featherweight.loading import load
from featherweight.run import MODEL, ONNX, TRANSFORMER, Run
from featherweight.sparse import make_sparse
from tests.helpers.pushes import REPO_ID, TEXTS, change, collected, content

SNAPSHOT = f'load(snapshot_download("{REPO_ID}"))'


def exported(run: Path, method: str) -> Path:
    """Turns a run into one of its ONNX variants."""
    classifier = load(run, "cpu")
    variant = export(classifier, dynamic, method, run.parent)
    (run / MODEL).unlink(missing_ok=True)
    shutil.rmtree(run / TRANSFORMER, ignore_errors=True)
    variant.save_in(Run(run))
    return run


def card(run: Path) -> tuple[dict[str, Any], str]:
    read = ModelCard(content(contents(Run(run), REPO_ID)["README.md"]).decode())
    compile(read.text.partition("```python\n")[2].partition("```")[0], "card", "exec")
    return read.data.to_dict(), read.text


@pytest.mark.parametrize("kind", ["run", "transformer_run"])
def test_an_exported_run_is_loaded_from_its_repository(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    variant = exported(request.getfixturevalue(kind), "onnx-int8")
    folder = collected(variant, tmp_path / "repository")
    assert {path.relative_to(folder).as_posix() for path in folder.glob("onnx/*")} == {
        f"onnx/{path.name}" for path in (variant / ONNX).iterdir()
    }
    assert not (folder / MODEL).exists()
    loaded = load(folder, "cpu")
    assert loaded.backend == "onnxruntime"
    assert loaded.predict(TEXTS) == load(variant, "cpu").predict(TEXTS)


@pytest.mark.parametrize(("kind", "tag"), [("run", "lstm"), ("transformer_run", "transformer")])
def test_the_card_of_an_exported_run_shows_how_to_load_it(
    kind: str, tag: str, request: pytest.FixtureRequest
) -> None:
    metadata, text = card(exported(request.getfixturevalue(kind), "onnx-int8"))
    assert metadata["library_name"] == "featherweight"
    assert metadata["tags"] == ["featherweight", tag, "onnx"]
    assert SNAPSHOT in text
    assert "ONNX graph" in text
    assert "`pipeline` cannot read it" in text
    assert text.count("```python") == 1


def test_an_exported_run_is_pushed_without_paths(transformer_run: Path) -> None:
    variant = exported(transformer_run, "onnx")
    for name in ("config.json", "tokenizer_config.json"):
        change(variant / ONNX, name, _name_or_path=str(variant / "base-model"))
    for name, file in contents(Run(variant), REPO_ID).items():
        assert b"private-place" not in content(file), name


def test_an_exported_run_without_its_graph_is_refused(run: Path) -> None:
    variant = exported(run, "onnx")
    (variant / ONNX / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"onnx has no model\.onnx: export it again"):
        contents(Run(variant), REPO_ID)


def test_a_sparse_transformer_is_loaded_by_featherweight(
    transformer_run: Path, tmp_path: Path
) -> None:
    weights = transformer_run / TRANSFORMER / MODEL
    tensors = load_file(weights)
    name = "bert.embeddings.word_embeddings.weight"
    tensors[name] = tensors[name] * (tensors[name] > 1)
    save_file(tensors, weights, {"format": "pt"})
    expected = load(transformer_run, "cpu").predict(TEXTS)
    make_sparse(weights)
    metadata, text = card(transformer_run)
    assert metadata["library_name"] == "featherweight"
    assert "stored without their zeros: use featherweight" in text
    assert SNAPSHOT in text
    folder = collected(transformer_run, tmp_path / "repository")
    assert load(folder, "cpu").predict(TEXTS) == expected


def test_adapters_are_pushed_and_the_card_rules_out_pipeline(
    transformer_run: Path,
) -> None:
    folder = transformer_run / TRANSFORMER / "adapter"
    folder.mkdir()
    facts = {"base_model_name_or_path": str(transformer_run / "base"), "r": 16}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    shutil.copy(transformer_run / TRANSFORMER / MODEL, folder / "adapter_model.safetensors")
    (folder / "training_args.bin").write_text("private")
    files = contents(Run(transformer_run), REPO_ID)
    assert {name for name in files if name.startswith("adapter/")} == {
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    }  # fmt: skip
    sent = json.loads(content(files["adapter/adapter_config.json"]))
    assert sent == facts | {"base_model_name_or_path": "base"}
    metadata, text = card(transformer_run)
    assert metadata["library_name"] == "featherweight"
    assert "separate adapters: use featherweight" in text
    assert SNAPSHOT in text


@pytest.mark.parametrize("package", ["torchao", "bitsandbytes"])
def test_the_card_of_quantized_weights_names_their_package(
    transformer_run: Path, package: str
) -> None:
    assert "pip install" not in card(transformer_run)[1]
    change(transformer_run / TRANSFORMER, "config.json",
           quantization_config={"quant_method": package})  # fmt: skip
    metadata, text = card(transformer_run)
    assert metadata["library_name"] == "transformers"
    assert f"`pip install {package}`" in text
    assert f'pipeline("text-classification", model="{REPO_ID}")' in text
