"""Bundles of others, with hashes that match: content that export does not write is refused."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.bundle_files import GOLDEN, LABELS, MAX_BYTES, METADATA, MODEL, TOKENIZER, read
from edge.contents import read_tokenizer
from edge.runtime import Bundle, load
from featherweight.errors import WeightsError
from lstm.config import TokenizerConfig
from lstm.tokenizer import train_tokenizer
from tests.helpers.bundles import metadata_of, refusal, rewrite, rewrite_metadata

TEXTS = ["so happy 😂", "", "why, why, why???", "x" * 300, "see https://a.b @ann &amp; \u200b"]
Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "temperature", [0, -1, 1e-300, float("nan"), float("inf"), 10**400, "warm", None, [1], {}]
)
def test_a_temperature_that_is_not_above_0_is_refused(copied: Path, temperature: object) -> None:
    rewrite_metadata(copied, metadata_of(copied) | {"temperature": temperature})
    assert METADATA in refusal(copied)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "two\nlines"}, {"name": "\x1b[31mred"}, {"name": ""}, {"name": 5},
        {"training": []}, {"training": {"compression": "int8"}}, {"graph": None},
        {"num_parameters": "many"},
        {"num_parameters": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_of_another_kind_is_refused(copied: Path, change: dict[str, Any]) -> None:
    rewrite_metadata(copied, metadata_of(copied) | change)
    assert METADATA in refusal(copied)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["joy", "sadness"], "2 labels"),
        (["a", "b", "c", "d"], "4 labels"),
        ([], "distinct"),
        (["joy", "joy", "fear"], "distinct"),
        (["joy", "fear", 3], "printable"),
        (["joy", "fear", " "], "printable"),
        (["joy", "fear", "an\nger"], "printable"),
        (["joy", "fear", "\x1b[2J"], "printable"),
        (["joy", "fear", "\ud800"], "printable"),
        ("joy", "printable"),
        ({"joy": 1, "fear": 2, "anger": 3}, "printable"),
    ],
)
def test_labels_that_are_not_distinct_names_are_refused(
    copied: Path, labels: object, reason: str
) -> None:
    rewrite(copied, LABELS, json.dumps(labels).encode())
    message = refusal(copied)
    assert LABELS in message
    assert reason in message


def test_labels_in_any_language_and_emoji_are_accepted(copied: Path) -> None:
    labels = ["très triste", "می\u200cخواهم", "👩\u200d👩\u200d👧"]
    rewrite(copied, LABELS, json.dumps(labels).encode())
    assert load(copied).classes_.tolist() == labels


@pytest.mark.parametrize(
    "row",
    [
        5, {}, {"text": 5, "probabilities": [0.2, 0.3, 0.5]}, {"text": "a"},
        {"text": "a", "probabilities": [1]}, {"text": "a", "probabilities": ["0", "0", "1"]},
        {"text": "a", "probabilities": [0.5, 0.5, float("nan")]},
        {"text": "a", "probabilities": {"a": 1, "b": 2, "c": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_golden_texts_of_another_kind_are_refused(copied: Path, row: object) -> None:
    rewrite(copied, GOLDEN, json.dumps(row).encode())
    message = refusal(copied)
    assert GOLDEN in message
    assert "line 1" in message


def replacing(pattern: dict[str, str], content: str = "") -> Change:
    step = {"type": "Replace", "pattern": pattern, "content": content}
    return lambda tokenizer: tokenizer["normalizer"]["normalizers"].append(step)


def splitting(regex: str) -> Change:
    return lambda tokenizer: tokenizer["pre_tokenizer"].update(pattern={"Regex": regex})


def with_part(name: str, value: object) -> Change:
    return lambda tokenizer: tokenizer.update({name: value})


def with_model(**changes: object) -> Change:
    return lambda tokenizer: tokenizer["model"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        replacing({"Regex": "(x+x+)+y"}), replacing({"Regex": "(a|a)*c"}),
        replacing({"Regex": "("}), replacing({"Regex": ""}), replacing({"Regex": "a"}),
        replacing({"Regex": "[ab][ab]*"}), replacing({"Regex": "[a](b+)+[c]"}),
        replacing({"Regex": "[ab]"}, "twice as long"), replacing({"String": ""}, ""),
        replacing({"String": "a"}, "aa"), replacing({"Other": "a"}),
        replacing({"Regex": r"(?:https?://|www\.)\S+"}, "x" * 1_000),
        splitting("(x+x+)+y"), splitting(r"\S*\S*\S*!"), splitting(""),
        with_part("normalizer", {"type": "NFD"}), with_part("normalizer", None),
        with_part("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 2_000}),
        with_part("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        with_part("normalizer", {"type": "Sequence", "normalizers": 5}),
        with_part("pre_tokenizer", {"type": "ByteLevel"}), with_part("pre_tokenizer", None),
        with_part("pre_tokenizer", []), with_part("post_processor", {"type": "ByteLevel"}),
        with_part("padding", {"strategy": {"Fixed": 10**9}}),
        with_part("decoder", {"type": "Fuse"}),
        with_part("added_tokens", [{"id": 3, "content": "x"}]),
        with_part("truncation", None), with_part("truncation", {"max_length": 5}),
        lambda tokenizer: tokenizer["truncation"].update(stride=500),
        lambda tokenizer: tokenizer["truncation"].update(max_length=0),
        lambda tokenizer: tokenizer["truncation"].update(max_length=True),
        with_part("model", None), with_model(type="Unigram"), with_model(type=["WordLevel"]),
        with_model(unk_token="none"), with_model(vocab=[]), with_model(vocab={}),
        with_model(vocab={"<pad>": 0, "<unk>": 1, "a": 3}),
        with_model(vocab={"<pad>": 0, "<unk>": 1, "a": 10**30}),
        with_model(vocab={"<pad>": 0, "<unk>": 1, "a": "2"}),
        with_model(vocab={"<pad>": 0, "<unk>": 1, "a": 2.0}),
        with_model(vocab={"<pad>": 1, "<unk>": 0}),
        with_model(type="BPE", merges=[], continuing_subword_prefix="é"),
        with_model(type="BPE", merges=[["a", "b"]]), with_model(type="BPE", merges=[], dropout=0.5),
    ],
)  # fmt: skip
def test_a_tokenizer_of_another_kind_is_refused(copied: Path, change: Change) -> None:
    tokenizer = json.loads((copied / TOKENIZER).read_text(encoding="utf-8"))
    change(tokenizer)
    rewrite(copied, TOKENIZER, json.dumps(tokenizer).encode())
    assert f"{TOKENIZER} does not fit this version" in refusal(copied)


@pytest.mark.parametrize("content", [b"5", b"[]", b"{", b"\xff", b"[" * 10**5, b"9" * 10**5])
def test_a_tokenizer_that_is_no_json_object_is_refused(copied: Path, content: bytes) -> None:
    rewrite(copied, TOKENIZER, content)
    assert f"{TOKENIZER} does not fit this version" in refusal(copied)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_each_tokenizer_that_train_makes_passes(kind: Any) -> None:

    tokenizer = train_tokenizer(
        [*TEXTS, "a [b] c - ^ d & e ] \\ ~ 🎉 ʰ ｡"] * 3, TokenizerConfig(kind)
    )
    read, max_length = read_tokenizer(tokenizer.to_str().encode())
    assert max_length == 128
    for text in TEXTS:
        assert read.encode(text).ids == tokenizer.encode(text).ids


def test_a_vocabulary_beyond_the_embedding_is_refused(copied: Path) -> None:
    tokenizer = json.loads((copied / TOKENIZER).read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["beyond"] = len(vocabulary)
    rewrite(copied, TOKENIZER, json.dumps(tokenizer).encode())
    assert "out of data bounds" in refusal(copied)


def changed_graph(folder: Path, change: Callable[[onnx.GraphProto], object]) -> None:
    model = onnx.load_from_string((folder / MODEL).read_bytes())
    change(model.graph)
    rewrite(folder, MODEL, model.SerializeToString())


def renamed(graph: onnx.GraphProto) -> None:
    graph.input[1].name = "sizes"
    for node in graph.node:
        node.input[:] = ["sizes" if name == "lengths" else name for name in node.input]


def with_int64_lengths(graph: onnx.GraphProto) -> None:
    graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    cast = helper.make_node("Cast", ["lengths"], ["int_lengths"], to=TensorProto.INT32)
    for node in graph.node:
        node.input[:] = ["int_lengths" if name == "lengths" else name for name in node.input]
    graph.node.insert(0, cast)


def with_another_output(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["logits"], ["again"]))
    graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, ["B", 3]))


def with_flat_output(graph: onnx.GraphProto) -> None:
    graph.node[-1].output[0] = "rows"
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
    graph.node.append(helper.make_node("Reshape", ["rows", "flat"], ["logits"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N"]))


@pytest.mark.parametrize(
    "change", [renamed, with_int64_lengths, with_another_output, with_flat_output]
)
def test_a_graph_with_other_inputs_or_outputs_is_refused(
    copied: Path, change: Callable[[onnx.GraphProto], object]
) -> None:
    changed_graph(copied, change)
    assert f"{MODEL} does not fit this version (its " in refusal(copied)


def with_constant_bias(value: float) -> Callable[[onnx.GraphProto], None]:
    def change(graph: onnx.GraphProto) -> None:
        (bias,) = (tensor for tensor in graph.initializer if tensor.name == "head.bias")
        bias.CopyFrom(numpy_helper.from_array(np.full(3, value, np.float32), "head.bias"))

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(copied: Path, value: float) -> None:
    changed_graph(copied, with_constant_bias(value))
    assert "not finite" in refusal(copied)


def test_logits_that_a_tiny_temperature_makes_infinite_are_refused(copied: Path) -> None:
    rewrite_metadata(copied, metadata_of(copied) | {"temperature": 1e-29})
    assert "not finite" in refusal(copied)


def test_logits_of_one_text_of_many_are_refused_when_it_is_predicted(exported: Path) -> None:
    bundle = load(exported)

    class Session:
        def run(self, _: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            logits = np.zeros((len(inputs["lengths"]), 3), np.float32)
            logits[inputs["lengths"] == 2, 1] = np.nan
            return [logits]

    bundle._session = Session()
    assert bundle.predict_proba(["happy", "so happy too"]) == pytest.approx(np.full((2, 3), 1 / 3))
    with pytest.raises(WeightsError, match=rf"{exported}: model\.onnx gives logits that are not"):
        bundle.predict_proba(["happy", "so happy", "so happy too"])


class Panic(BaseException):
    """Like the exception of a panic in the library, not a subclass of Exception."""


def test_a_panic_of_the_tokenizer_is_an_error_of_the_bundle(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load(exported)

    class Panicking:
        def encode(self, *_: object, **__: object) -> None:
            raise Panic("a secret text")

    monkeypatch.setattr(bundle._token_cache, "_tokenizer", Panicking())
    with pytest.raises(WeightsError, match=r"tokenizer\.json fails on a text \(Panic\)") as caught:
        bundle.predict(["some text"])
    assert str(caught.value).startswith(f"{exported}: ")


def flipped_or_cut(content: bytes, generator: random.Random) -> bytes:
    if generator.random() < 0.2:
        return content[: generator.randrange(len(content))]
    changed = bytearray(content)
    changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("name", [*MAX_BYTES, "bundle.zip"])
def test_a_random_change_is_refused_or_changes_nothing(
    copied: Path, exported_zip: Path, tmp_path: Path, name: str
) -> None:
    path, file = copied, copied / name
    if name == "bundle.zip":
        path = file = tmp_path / name
        file.write_bytes(exported_zip.read_bytes())
    content, expected = file.read_bytes(), load(path).predict_proba(TEXTS)
    generator, refused = random.Random(0), 0
    for _ in range(100):
        file.write_bytes(flipped_or_cut(content, generator))
        try:
            probabilities = load(path).predict_proba(TEXTS)
        except WeightsError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert np.array_equal(probabilities, expected)
    assert refused > 50


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, LABELS, GOLDEN])
def test_a_random_change_by_the_maker_is_refused_or_gives_probabilities(
    exported: Path, name: str
) -> None:
    files, metadata = read(exported), metadata_of(exported)
    generator = random.Random(0)
    for _ in range(100):
        content = flipped_or_cut(files[name], generator)
        try:
            bundle = Bundle({**files, name: content}, metadata)
            probabilities = bundle.predict_proba(TEXTS)
        except WeightsError as error:
            assert "\n" not in str(error)
        else:
            assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(TEXTS)))
