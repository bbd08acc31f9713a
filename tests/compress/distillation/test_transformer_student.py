import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compress import variant
from compress.config import CompressConfig
from compress.distillation import lstm_student
from compress.distillation.distill import distill
from compress.origin import Origin
from compress.variant import compress_run
from featherweight import load
from featherweight.cli import main
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.run import CHECKPOINTS, COMPRESSION, CONFIG, MODEL, TRANSFORMER, Run, kind
from featherweight.training.run_records import resolved
from lstm.classifier import TextClassifier
from lstm.config import TrainConfig, preset
from tests.helpers.variants import BERT
from transformer_eval.classifier import TransformerClassifier
from transformer_eval.config import FinetuneConfig
from transformer_eval.finetune import tokenizer_and_model
from transformer_eval.fit import fit
from transformer_eval.model_files import fetch
from transformer_eval.random_weights import build
from transformer_eval.registry import REGISTRY, Pretrained
from transformer_eval.safe_trainer import History, SafeTrainer

RATE = 1e-3

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def bert_run(bert_run: Run, tiny_data: Path) -> Run:
    """The run of a tiny transformer, with the config of a fine-tuned one."""
    bert_run.file("tokenizer.json").unlink()
    bert_run.write_json(CONFIG, resolved(FinetuneConfig(data=str(tiny_data), max_length=64)))
    return bert_run


@pytest.fixture(scope="module")
def pretrained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller transformer with a head for other labels."""
    path = tmp_path_factory.mktemp("smaller") / "smaller"
    sizes = {**BERT, "num_hidden_layers": 1}
    build(Pretrained("acme/smaller", "bert", sizes), dataset.train.texts, ("good", "bad"), path)
    return path


@pytest.fixture
def smaller(pretrained: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(pretrained, tmp_path / "smaller"))


Learn = Callable[..., Any]


@pytest.fixture
def learn(bert_run: Run, smaller: Path, dataset: Dataset) -> Learn:
    """Distills with some flags; resumes an interrupted training."""

    def make(data: Dataset = dataset, **flags: Any) -> Any:
        defaults = {"student": str(smaller), "retraining_epochs": 1, "retraining_rate": RATE}
        config = CompressConfig(method="distill", device="cpu", **{**defaults, **flags})
        workspace = bert_run.path / "compressed" / ".distill"
        workspace.mkdir(parents=True, exist_ok=True)
        origin = Origin(bert_run, load(bert_run.path, "cpu"), data)
        variant = distill(origin, config, workspace)
        shutil.rmtree(workspace)
        return variant

    return make


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the presets train for one short epoch."""

    def made(name: Any, **flags: Any) -> TrainConfig:
        return replace(preset(name, **flags), epochs=1, min_steps=1)

    monkeypatch.setattr(lstm_student, "preset", made)


def weights(classifier: TransformerClassifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in classifier.model.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Training


def test_with_labels_only_it_equals_plain_fine_tuning(
    learn: Learn, smaller: Path, dataset: Dataset, tmp_path: Path
) -> None:
    made = learn(alpha=1.0, seed=3)
    config = FinetuneConfig(
        epochs=1, patience=1, learning_rate=RATE, seed=3, device="cpu", max_length=64
    )
    tokenizer, network = tokenizer_and_model(config, fetch(str(smaller)), dataset)
    plain = fit(network, tokenizer, dataset, config, Run(tmp_path / "plain")).model
    assert equal(weights(made), plain.state_dict())
    assert (made.name, made.labels, made.dtype) == ("bert (distill)", dataset.labels, "fp32")
    assert made.model.config.num_hidden_layers == 1
    assert made.max_length == 64


def test_teachers_temperature_seed_and_additional_texts_matter(
    learn: Learn, tiny_run: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.csv"
    # 100 texts: some batches have no label at all.
    more.write_text("text\n" + "one word after another\n" * 100, encoding="utf-8")
    flags: list[dict[str, Any]] = [
        {}, {"temperature": 1.0}, {"seed": 1}, {"unlabelled": more},
        {"teachers": [tiny_run]},
    ]  # fmt: skip
    made = [weights(learn(**changes)) for changes in flags]
    for index, one in enumerate(made):
        assert not any(equal(one, other) for other in made[:index])
    assert all(torch.isfinite(value).all() for one in made for value in one.values())


def test_at_alpha_0_labels_have_no_effect(learn: Learn, dataset: Dataset) -> None:
    train = replace(dataset.train, labels=(dataset.train.labels + 1) % 3)
    others = replace(dataset, train=train)
    one, other = (weights(learn(data=data, alpha=0.0)) for data in (dataset, others))
    assert equal(one, other)


def test_the_default_learning_rate_is_that_of_the_registry(
    learn: Learn, smaller: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rates: list[float] = []

    def stop(self: SafeTrainer, **kwargs: Any) -> None:
        rates.append(kwargs["args"].learning_rate)
        raise InterruptedError

    monkeypatch.setattr(SafeTrainer, "__init__", stop)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    shutil.copytree(smaller, tmp_path / "package" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    known = replace(REGISTRY["minilm"], package="package")
    monkeypatch.setattr("transformer_eval.model_files.REGISTRY", {"minilm": known})
    for flags in ({"student": "minilm"}, {"student": "minilm", "retraining_rate": 3e-5}, {}):
        with pytest.raises(InterruptedError):
            learn(**{"retraining_rate": 0.0, **flags})
    assert rates == [1e-4, 3e-5, 2e-5]


@pytest.mark.parametrize("change", ["nothing", "teacher", "student"])
def test_an_interrupted_training_resumes_only_with_equal_data(
    learn: Learn, bert_run: Run, tiny_run: Path, smaller: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, change: str,
) -> None:  # fmt: skip
    teacher = Path(shutil.copy(tiny_run / MODEL, tmp_path / "teacher.safetensors"))
    flags = {"teachers": [teacher, bert_run.path], "alpha": 0.3, "retraining_epochs": 2}
    begin = History.on_epoch_begin
    epochs: list[int] = []

    def interrupted(self: History, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch and state.epoch >= 1:
            raise KeyboardInterrupt
        begin(self, args, state, control, **kwargs)

    def counted(self: History, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epochs.append(round(state.epoch or 0))
        begin(self, args, state, control, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(History, "on_epoch_begin", interrupted)
        learn(**flags)
    assert (bert_run.path / "compressed" / ".distill" / CHECKPOINTS).is_dir()
    if change == "teacher":
        other = load(teacher, "cpu")
        assert isinstance(other, TextClassifier)
        with torch.no_grad():
            other.module.head.weight *= -1
        other.save(teacher)
    if change == "student":
        shutil.copytree(bert_run.file(TRANSFORMER), smaller, dirs_exist_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr(History, "on_epoch_begin", counted)
        made = learn(**flags)
    assert epochs == ([1] if change == "nothing" else [0, 1])
    if change == "nothing":
        assert equal(weights(made), weights(learn(**flags)))


# The run of the variant


def compressed(run: Run, **flags: Any) -> Run:
    return compress_run(
        CompressConfig(
            weights=run.path, method="distill", device="cpu", retraining_epochs=1, **flags
        )
    )[0]


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the latency."""
    monkeypatch.setattr(variant, "_latency_ms", lambda *_: {})


def test_an_lstm_student_of_a_transformer_leaves_an_lstm_run(
    bert_run: Run, tiny_data: Path, untimed: None, short: None
) -> None:
    made = compressed(bert_run, student="feather", seed=2)
    student = load(made.path, "cpu")
    assert isinstance(student, TextClassifier)
    assert student.name == "bert (distill)"
    assert student.labels == load(bert_run.path).labels
    assert student.tokenizer.truncation["max_length"] == 64
    config = made.read_json(CONFIG)
    assert kind(config) == "lstm"
    assert config.keys() == TrainConfig.__dataclass_fields__.keys()
    assert (config["preset"], config["seed"], config["data"]) == ("feather", 2, str(tiny_data))
    assert config["vocab_size"] == student.tokenizer.get_vocab_size()
    touched = made.read_json(COMPRESSION)["touched"]
    assert "attention" in touched["before"]
    assert "LSTM" in touched["after"]
    assert made.read_json(COMPRESSION)["ratio"] == (
        student.size_bytes() / load(bert_run.path).size_bytes()
    )
    assert not made.file(TRANSFORMER).exists()


@pytest.mark.parametrize("of", ["transformer", "lstm"])
def test_a_transformer_student_leaves_a_transformer_run(
    bert_run: Run, tiny_run: Path, smaller: Path, tmp_path: Path, untimed: None, of: str
) -> None:
    lstm_run = Run(Path(shutil.copytree(tiny_run, tmp_path / "outputs" / "tiny")))
    origin = bert_run if of == "transformer" else lstm_run
    made = compressed(origin, student=str(smaller))
    student = load(made.path, "cpu")
    assert isinstance(student, TransformerClassifier)
    assert student.name == f"{origin.path.name} (distill)"
    assert student.labels == load(origin.path).labels
    config = made.read_json(CONFIG)
    assert kind(config) == "transformer"
    assert config.keys() == FinetuneConfig.__dataclass_fields__.keys()
    assert (config["model"], config["epochs"]) == ([str(smaller)], 1)
    assert config["data"] == origin.read_json(CONFIG)["data"]
    assert made.read_json("evaluation.json")["n"] == 12
    assert not made.file(MODEL).exists()


# Refused options


def test_a_transformer_needs_a_student(bert_run: Run) -> None:
    with pytest.raises(UsageError, match="--student") as caught:
        compressed(bert_run)
    for way_out in ("feather", "classic", "registry name", "Hub id", "folder"):
        assert way_out in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(bert_run.file("compressed").iterdir()) == []


def test_an_unavailable_student_is_refused_before_teachers_are_loaded(
    bert_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for student, error in (("fe ther", UsageError), (str(tmp_path / "empty"), WeightsError)):
        with pytest.raises(error) as caught:
            compressed(bert_run, student=student, teachers=[tmp_path / "nowhere"])
        assert student in str(caught.value)
        assert "--model" not in str(caught.value)
        assert error is WeightsError or "--student" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_transformer_needs_an_epoch(bert_run: Run, smaller: Path) -> None:
    config = CompressConfig(
        weights=bert_run.path, method="distill", student=str(smaller), retraining_epochs=0
    )
    with pytest.raises(UsageError, match="--retraining_epochs must be at least 1"):
        compress_run(config)


def test_a_teacher_with_other_labels_is_refused(bert_run: Run, smaller: Path) -> None:
    with pytest.raises(UsageError, match=r"--teachers .* has the labels good, bad"):
        compressed(bert_run, student="feather", teachers=[smaller])


def test_the_command_line(
    bert_run: Run, smaller: Path, tiny_run: Path, untimed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["compress", "--weights", str(bert_run.path), "--method", "distill", "--device", "cpu",
         "--student", str(smaller), "--retraining_epochs", "1",
         "--teachers", str(bert_run.path), str(tiny_run)]
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code in (None, 0), captured.err
    assert "bert (distill)" in captured.out
    flags = Run(bert_run.path / "compressed" / "distill").read_json(COMPRESSION)["flags"]
    assert flags["teachers"] == [str(bert_run.path), str(tiny_run)]
