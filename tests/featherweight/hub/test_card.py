import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from featherweight.errors import WeightsError
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


def test_the_card_has_the_scores_of_the_test_split_if_there_are_any(run: Path) -> None:
    assert "## Test" not in card(run)[1]
    assert "evaluation-test.json" not in contents(Run(run), REPO_ID)
    tested = json.loads((run / "evaluation.json").read_text()) | {"split": "test", "n": 1_234}
    tested |= {"accuracy": 0.5, "macro_f1": 0.25}
    tested["intervals"] |= {"accuracy": [0.4, 0.6], "macro_f1": [0.2, 0.3]}
    (run / "evaluation-test.json").write_text(json.dumps(tested))

    metadata, text = card(run)
    (entry,) = metadata["model-index"]
    splits = {result["dataset"]["split"]: result["metrics"] for result in entry["results"]}
    assert [*splits] == ["validation", "test"]
    assert {metric["value"] for metric in splits["test"]} == {0.5, 0.25}
    assert (
        "## Test\n\nData `moods`, test split, n = 1,234, 95 % bootstrap intervals: accuracy 0.5000 "
        "[0.400, 0.600], macro-F1 0.2500 [0.200, 0.300].\n\n## Use\n" in text
    )
    assert "evaluation-test.json" in contents(Run(run), REPO_ID)


@pytest.mark.parametrize("damaged", ["{", "{}", "[1]", '{"split": "test", "n": "x"}'])
def test_damaged_scores_of_the_test_split_are_not_pushed(run: Path, damaged: str) -> None:
    (run / "evaluation-test.json").write_text(damaged)
    with pytest.raises(WeightsError, match=r"evaluation-test\.json is "):
        card(run)
