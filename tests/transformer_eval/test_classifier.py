import copy
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from featherweight import load
from featherweight.classifier import Classifier
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import UsageError, WeightsError
from featherweight.quality.evaluation import evaluate
from transformer_eval.classifier import (
    TransformerClassifier,
    class_names,
    load_model,
    load_tokenizer,
    max_length,
    numbered,
)

FAMILIES = ("bert", "distilbert", "roberta", "modernbert", "deberta-v2", "electra", "albert")
LABELS = ("sadness", "anger", "joy")
TEXTS = [
    "i am so happy",
    "",
    "the bus is late again and i hate this, i hate all of it, why is it always late",
    "😂",
    "alone",
    "zzzz qqqq \u4e00 ÄÖÜ\x00\u200b",
    "i miss my dog so much tonight, the house is empty and i miss her " * 4,
]
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"

each_family = pytest.mark.parametrize("family", FAMILIES)
Folders = Mapping[str, Path]


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A tiny BERT that the test may change."""
    return shutil.copytree(tiny_bert, tmp_path / "mine")


@pytest.fixture
def classifier(tiny_bert: Path) -> TransformerClassifier:
    return TransformerClassifier.load(tiny_bert, "cpu")


def change(folder: Path, file: str = CONFIG, **entries: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries))


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(folder, "cpu")
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def permuted(origin: Path, folder: Path, order: tuple[int, ...]) -> Path:
    """Copies a model with its classes in another order."""
    shutil.copytree(origin, folder)
    tensors = load_file(folder / WEIGHTS)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][list(order)].clone()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    names = [LABELS[index] for index in order]
    change(folder, id2label=dict(enumerate(names)), label2id=None)
    return folder


# Predictions


@each_family
def test_every_family_loads_by_path_and_predicts(tiny_transformers: Folders, family: str) -> None:
    classifier = load(str(tiny_transformers[family]), "cpu")

    assert (classifier.name, classifier.labels) == (f"tiny-{family}", LABELS)
    assert (classifier.device, classifier.dtype, classifier.backend) == ("cpu", "fp32", "torch")
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert classifier.logits(TEXTS).std(axis=0).min() > 0.01  # the texts have different logits
    labels = [LABELS[index] for index in probabilities.argmax(axis=1)]
    assert classifier.predict(TEXTS) == labels


@each_family
def test_logits_are_those_of_the_library(tiny_transformers: Folders, family: str) -> None:
    folder = tiny_transformers[family]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        alone = [network(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS]

    logits = load(folder, "cpu").logits(TEXTS)

    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, torch.cat(alone).numpy(), atol=1e-4)


@each_family
def test_padding_does_not_change_logits(tiny_transformers: Folders, family: str) -> None:
    classifier = load(tiny_transformers[family], "cpu")

    batch = classifier.encode(TEXTS)
    together = classifier.forward(batch)
    alone = [classifier.forward(classifier.encode([text])) for text in TEXTS]

    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) > 3
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batch_size_does_not_change_logits(
    classifier: TransformerClassifier, batch_size: int
) -> None:
    logits = classifier.logits(TEXTS, batch_size)

    np.testing.assert_allclose(logits, classifier.logits(TEXTS), atol=1e-4)
    assert classifier.logits([], batch_size).shape == (0, 3)


def test_dropout_is_disabled(folder: Path) -> None:
    change(folder, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    classifier = load(folder, "cpu")

    np.testing.assert_array_equal(classifier.logits(TEXTS), classifier.logits(TEXTS))


def test_fp16_weights_are_computed_in_fp32_on_the_cpu(folder: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    change(folder, dtype="float16")

    classifier = TransformerClassifier.load(folder, "cpu")

    assert classifier.dtype == "fp32"
    assert classifier.model.dtype == torch.float32
    assert np.isfinite(classifier.logits(TEXTS)).all()


def test_name_shapes_and_token_counts(tiny_bert: Path) -> None:
    classifier: Classifier = TransformerClassifier.load(tiny_bert, "cpu", name="other")

    batch = classifier.encode(["so happy", "alone"])
    lengths = [len(ids) for ids in load_tokenizer(tiny_bert)(["so happy", "alone"])["input_ids"]]
    assert classifier.name == "other"
    assert classifier.forward(batch).shape == (2, 3)
    assert classifier.num_tokens(batch) == sum(lengths) < 2 * max(lengths)
    assert classifier.truncated_texts == 0


def test_device_cuda_without_cuda_is_refused(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(UsageError, match="--device"):
        load(tiny_bert, "cuda")


# Lengths


def test_fixed_padding_and_truncation_of_a_tokenizer_are_ignored(
    folder: Path, tiny_bert: Path
) -> None:
    long = "happy " * 300
    padding = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None,
               "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    truncation = {"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    change(folder, TOKENIZER, padding=padding, truncation=truncation)

    classifier = TransformerClassifier.load(folder, "cpu")

    # Both after loading and after use.
    for _ in range(2):
        plain = classifier.tokenizer.backend_tokenizer.encode_batch(["so happy", long])
        assert [len(encoding.ids) for encoding in plain] == [4, 302]
        assert classifier.encode(["so happy"])["input_ids"].shape == (1, 4)
        assert classifier.encode(["so happy", long])["input_ids"].shape == (2, 302)
        classifier.tokenizer.backend_tokenizer.no_padding()
        classifier.tokenizer.backend_tokenizer.no_truncation()
    assert classifier.truncated_texts == 0
    untouched = load(tiny_bert, "cpu").logits([*TEXTS, long])
    np.testing.assert_allclose(classifier.logits([*TEXTS, long]), untouched, atol=1e-4)


@pytest.mark.parametrize(("family", "limit"), [("bert", 512), ("roberta", 128), ("albert", 512)])
def test_only_truncated_texts_are_counted(
    tiny_transformers: Folders, family: str, limit: int
) -> None:
    classifier = load(tiny_transformers[family], "cpu")
    fits, too_long = "i " * (limit - 2), "i " * (limit - 1)
    assert classifier.num_tokens(classifier.encode([fits])) == limit
    assert classifier.truncated_texts == 0

    batch = classifier.encode([too_long, fits, "i", "", too_long, too_long * 2])
    assert batch["input_ids"].shape == (6, limit)
    assert classifier.truncated_texts == 3
    assert np.isfinite(classifier.forward(batch)).all()  # there is a position for each token

    classifier.encode([fits, too_long])
    assert classifier.truncated_texts == 4


def test_maximum_length_of_the_tokenizer_is_respected(folder: Path) -> None:
    change(folder, "tokenizer_config.json", model_max_length=8)
    classifier = load(folder, "cpu")

    assert classifier.encode(["i " * 6, "i " * 7])["input_ids"].shape == (2, 8)
    assert classifier.truncated_texts == 1


@pytest.mark.parametrize(
    ("family", "positions", "by_tokenizer", "expected"),
    [
        ("bert", {"max_position_embeddings": 40}, 512, 40),
        ("bert", {"max_position_embeddings": 512}, 128, 128),
        ("bert", {"max_position_embeddings": 4096}, int(1e30), 512),
        ("modernbert", {"max_position_embeddings": 8192}, 8192, 512),
        # RoBERTa's positions start after its padding id.
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, int(1e30), 512),
        ("roberta", {"max_position_embeddings": 130, "pad_token_id": 1}, int(1e30), 128),
        ("xlm-roberta", {"max_position_embeddings": 130, "pad_token_id": 1}, 128, 128),
        ("xlm-roberta", {"max_position_embeddings": 130, "pad_token_id": 4}, 512, 125),
        ("t5", {}, int(1e30), 512),
    ],
)
def test_smallest_limit_is_the_maximum_length(
    tiny_bert: Path, family: str, positions: dict[str, Any], by_tokenizer: int, expected: int
) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    tokenizer.model_max_length = by_tokenizer
    config = AutoConfig.for_model(family)
    for name, value in positions.items():
        setattr(config, name, value)

    assert max_length(tokenizer, config) == expected


# Normalization


def test_texts_are_normalized_as_the_config_states(
    folder: Path, classifier: TransformerClassifier
) -> None:
    raw, normalized = "@ann look http://x.org/a?b", "@user look http"
    change(folder, text_normaliser="cardiff")
    normalizing = load(folder, "cpu")

    np.testing.assert_array_equal(normalizing.logits([raw]), classifier.logits([normalized]))
    assert np.abs(classifier.logits([raw]) - classifier.logits([normalized])).max() > 1e-3


def test_length_is_counted_after_normalization(
    folder: Path, classifier: TransformerClassifier
) -> None:
    text = "http://example.org/a/b/c/d/e/f " * 60
    change(folder, text_normaliser="cardiff")
    normalizing = load(folder, "cpu")

    for each in (normalizing, classifier):
        each.encode([text])

    assert (normalizing.truncated_texts, classifier.truncated_texts) == (0, 1)


# 16-bit weights


@each_family
def test_every_family_computes_in_its_stored_bf16(
    tiny_transformers: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr("transformer_eval.classifier.cpu_flags", lambda: ["avx512_bf16"])
    origin = load(tiny_transformers[family], "cpu")
    assert isinstance(origin, TransformerClassifier)
    network = copy.deepcopy(origin.model).to(torch.bfloat16)
    half = origin.with_network("half", network, tmp_path / "half")

    assert (half.dtype, half.stored_dtype) == ("bf16", "bf16")
    assert (origin.dtype, origin.stored_dtype) == ("fp32", "fp32")
    expected = origin.logits(TEXTS)
    assert np.abs(half.logits(TEXTS) - expected).mean() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("dtype", "float16", "fp16"),
        ("dtype", None, "fp32"),
        ("torch_dtype", "bfloat16", "bf16"),
        ("torch_dtype", "float64", "fp32"),
    ],
)
def test_stored_dtype_is_that_of_the_config(
    folder: Path, name: str, dtype: Any, expected: str
) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config.pop("dtype")
    (folder / CONFIG).write_text(json.dumps({**config, name: dtype}))

    classifier = load(folder, "cpu")
    assert isinstance(classifier, TransformerClassifier)
    assert classifier.stored_dtype == expected


def test_16_bit_weights_are_loaded_in_fp32_for_training(tiny_bert: Path, tmp_path: Path) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(tiny_bert).to(torch.bfloat16)
    network.save_pretrained(tmp_path)

    loaded = load_model(AutoModelForSequenceClassification, tmp_path)

    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, network.get_parameter(name).float())


# Output of libraries


def test_nothing_is_printed_on_import() -> None:
    code = (
        "import compress.transformer.methods, transformer_eval.test_transformer, peft, bitsandbytes"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Classes


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (1, 0, 2)])
def test_class_order_does_not_change_the_evaluation(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    data = load_dataset(DataConfig(data=str(tiny_data)))
    other = load(permuted(tiny_bert, tmp_path / "other", order), "cpu")
    assert other.labels != LABELS != data.labels

    expected = evaluate(load(tiny_bert, "cpu"), data.train, "moods")
    actual = evaluate(other, data.train, "moods")

    assert len(set(expected.predictions.tolist())) > 1
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-6)
    assert (actual.scores, actual.per_class()) == (expected.scores, expected.per_class())


NUMBERED = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


@pytest.mark.parametrize(
    ("id2label", "names", "expected"),
    [
        (NUMBERED, ("sad", "mad", "glad"), ("sad", "mad", "glad")),
        (dict(reversed(NUMBERED.items())), ("sad", "mad", "glad"), ("sad", "mad", "glad")),
        ({0: "0", 1: "1", 2: "2"}, ("sad", "mad", "glad"), ("sad", "mad", "glad")),
        (NUMBERED, (), ("LABEL_0", "LABEL_1", "LABEL_2")),
        (NUMBERED, ("sad", "glad"), ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({0: "a", 1: "b", 2: "c"}, ("sad", "mad", "glad"), ("a", "b", "c")),
        ({2: "c", 0: "a", 1: "b"}, (), ("a", "b", "c")),
        # A single real name is enough to use the names of the config.
        (NUMBERED | {2: "other"}, ("a", "b", "c"), ("LABEL_0", "LABEL_1", "other")),
    ],
)  # fmt: skip
def test_given_names_replace_only_numbers(
    id2label: dict[int, str], names: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    config = AutoConfig.for_model("bert", id2label=id2label, label2id={})

    assert class_names(config, names) == expected


def test_numbered_names() -> None:
    assert numbered(["LABEL_0", "LABEL_10"]) and numbered(["0", "1"])
    assert not numbered(["LABEL_", "LABEL_1"]) and not numbered(["label_0", "LABEL_1"])
    assert not numbered(["joy"]) and not numbered(["LABEL_0", "LABEL_0_old"])


def test_given_names_become_the_labels(folder: Path) -> None:
    change(folder, id2label=NUMBERED, label2id=None)

    assert TransformerClassifier.load(folder, "cpu", labels=LABELS).labels == LABELS
    assert load(folder, "cpu").labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_class_without_a_name_is_refused(folder: Path) -> None:
    change(folder, id2label={"1": "sadness", "2": "anger", "3": "joy"}, label2id=None)

    assert "id2label" in refusal(folder)


# Size


@each_family
def test_parameters_and_size_are_those_of_the_files(
    tiny_transformers: Folders, family: str
) -> None:
    folder = tiny_transformers[family]
    classifier = load(folder, "cpu")

    # The shared layers of ALBERT are in the file once.
    values = sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())
    assert classifier.num_parameters() == values
    files = (WEIGHTS, CONFIG, TOKENIZER, "tokenizer_config.json")
    assert classifier.size_bytes() == sum((folder / name).stat().st_size for name in files)
    assert classifier.size_bytes() > 4 * values


def test_files_for_other_libraries_are_not_counted(folder: Path) -> None:
    before = load(folder, "cpu").size_bytes()
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "training_args.pt", "run.py"):
        (folder / name).write_bytes(b"?" * 1000)
    (folder / "onnx").mkdir()
    (folder / "onnx" / WEIGHTS).write_bytes(b"?" * 1000)

    assert load(folder, "cpu").size_bytes() == before


def test_size_of_links_is_that_of_their_targets(tiny_bert: Path, tmp_path: Path) -> None:
    cached = tmp_path / "snapshot"
    cached.mkdir()
    for path in tiny_bert.iterdir():
        (cached / path.name).symlink_to(path)

    assert load(cached, "cpu").size_bytes() == load(tiny_bert, "cpu").size_bytes()


# Refused models


@each_family
def test_model_without_a_head_is_refused(
    tiny_transformers: Folders, tmp_path: Path, family: str
) -> None:
    folder = shutil.copytree(tiny_transformers[family], tmp_path / "headless")
    AutoModel.from_pretrained(folder).save_pretrained(folder)

    assert "featherweight finetune" in refusal(folder)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "with_torch"),
    [("pytorch_model.bin", True), ("pytorch_model.bin", False), (WEIGHTS, True), (WEIGHTS, False)],
)
def test_nothing_is_unpickled(folder: Path, tmp_path: Path, name: str, with_torch: bool) -> None:
    (folder / WEIGHTS).unlink()
    bomb = Bomb(tmp_path / "exploded")
    if with_torch:
        torch.save(bomb, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(bomb))

    refusal(folder)

    assert not bomb.path.exists()


def with_code(folder: Path, tmp_path: Path, **entries: Any) -> Path:
    """Adds code to a model that creates a file when it is imported; returns that file."""
    trace = tmp_path / "imported"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model",
            "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}  # fmt: skip
    change(folder, auto_map=code, **entries)
    change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": code["AutoTokenizer"]})
    return trace


def test_model_that_needs_its_own_code_is_refused(folder: Path, tmp_path: Path) -> None:
    trace = with_code(folder, tmp_path, model_type="evil", architectures=["EvilModel"])

    assert "code of its own, which is never run" in refusal(folder)

    assert not trace.exists()


def test_code_that_is_not_needed_is_ignored(
    folder: Path, tmp_path: Path, classifier: TransformerClassifier
) -> None:
    trace = with_code(folder, tmp_path)

    np.testing.assert_array_equal(load(folder, "cpu").logits(TEXTS), classifier.logits(TEXTS))

    assert not trace.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.9999])
def test_truncated_weights_are_refused(folder: Path, share: float) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: int(share * len(data))])

    assert re.search("its model cannot be loaded|truncated", refusal(folder))


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()

    assert WEIGHTS in refusal(folder)


@pytest.mark.parametrize(
    "entries",
    [{"hidden_size": 16}, {"vocab_size": 10}, {"id2label": {"0": "joy", "1": "anger"}}],
)  # fmt: skip
def test_weights_that_do_not_fit_the_config_are_refused(
    folder: Path, entries: dict[str, Any]
) -> None:
    change(folder, **entries)

    assert "its weights have other sizes than its config.json" in refusal(folder)


@each_family
def test_missing_tokenizer_is_refused(
    tiny_transformers: Folders, tmp_path: Path, family: str
) -> None:
    folder = shutil.copytree(tiny_transformers[family], tmp_path / "copy")
    for name in (TOKENIZER, "tokenizer_config.json"):
        (folder / name).unlink()
        assert "tokenizer" in refusal(folder)


@pytest.mark.parametrize("file", [TOKENIZER, "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_damaged_tokenizer_is_refused(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)

    assert "its tokenizer cannot be loaded" in refusal(folder)


def test_tokenizer_without_padding_is_refused(folder: Path) -> None:
    change(folder, "tokenizer_config.json", pad_token=None)

    assert "no padding token" in refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"7", b"null", b"[]", b'"bert"', b"\xff\xfe", b"[" * 200_000]
)
def test_folder_without_a_readable_config_is_refused(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)

    with pytest.raises(WeightsError, match="has no readable config") as error:
        TransformerClassifier.load(folder, "cpu")
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("model_type", ["frobnicator", None, 7, ""])
def test_unknown_architecture_is_refused(folder: Path, model_type: Any) -> None:
    change(folder, model_type=model_type)

    refusal(folder)
