import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from featherweight.hub.push import contents
from featherweight.run import CONFIG, TRANSFORMER, Run
from tests.helpers.pushes import REPO_ID, change, content


def card(run: Path, license: str = "") -> tuple[dict[str, Any], str]:
    """Returns metadata and text of the card that would be pushed."""
    text = content(contents(Run(run), REPO_ID, license)["README.md"]).decode()
    read = ModelCard(text)
    return read.data.to_dict(), read.text


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_card_has_the_metrics_and_their_split(run: Path, split: str) -> None:
    change(run, "evaluation.json", split=split)
    evaluation = json.loads((run / "evaluation.json").read_text())
    metadata, text = card(run)
    (entry,) = metadata["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {
        "name": "moods", "type": "moods", "split": split, "args": {"n": 12},
    }  # fmt: skip
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {"accuracy": evaluation["accuracy"], "f1": evaluation["macro_f1"]}
    assert {metric["name"] for metric in result["metrics"]} == {
        f"Accuracy ({split}, n = 12)",
        f"Macro F1 ({split}, n = 12)",
    }
    assert metadata["pipeline_tag"] == "text-classification"
    assert metadata["tags"] == ["featherweight", "lstm"]
    assert "license" not in metadata
    assert "## Quality" in text


def test_the_card_of_a_transformer_names_the_library_that_loads_it(transformer_run: Path) -> None:
    metadata, text = card(transformer_run, license="apache-2.0")
    assert metadata["library_name"] == "transformers"
    assert metadata["license"] == "apache-2.0"
    assert f'pipeline("text-classification", model="{REPO_ID}")' in text
    assert "NORMALIZERS" not in text


def test_the_card_of_a_transformer_shows_how_to_normalize(transformer_run: Path) -> None:
    change(transformer_run / TRANSFORMER, CONFIG, text_normaliser="cardiff")
    assert 'NORMALIZERS["cardiff"]("i feel' in card(transformer_run)[1]


@pytest.mark.parametrize("kind", ["run", "transformer_run"])
def test_the_card_has_one_program_that_loads_from_the_hub(
    kind: str, request: pytest.FixtureRequest
) -> None:
    _, text = card(request.getfixturevalue(kind))
    assert text.count("```python") == 1
    program = text.partition("```python\n")[2].partition("```")[0]
    assert REPO_ID in program
    compile(program, "card", "exec")
    if kind == "run":
        assert f'load(hf_hub_download("{REPO_ID}", "model.safetensors"))' in program


def test_a_handwritten_card_gets_a_section_on_use(run: Path) -> None:
    (run / "README.md").write_text("# tiny\n\nWritten by hand.\n")
    _, text = card(run)
    assert "Written by hand.\n\n## Use\n\n```python\n" in text


def test_the_card_refers_to_published_files_only(run: Path) -> None:
    assert "](training_curves.png)" in card(run)[1]
    (run / "training_curves.png").unlink()  # as in a compressed variant
    assert "training_curves.png" not in contents(Run(run), REPO_ID)
    _, text = card(run)
    assert "training_curves.png" not in text
    assert "data.json" not in text
    assert "](confusion_matrix.png)" in text
