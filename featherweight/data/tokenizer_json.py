"""Checks that the content of a tokenizer file is of the kind that `train` writes.

A file may be from anyone, and the `tokenizers` library is not safe for any content: some regular
expressions take exponential time or end in a panic, and some fields make it panic. So only the
steps and the regular expressions that featherweight writes are accepted.
"""

import re
from collections.abc import Mapping
from typing import Any

from featherweight.data.token_patterns import AFTER_FOLDING, BEFORE_FOLDING, TOKEN, UNSORTED

PAD_TOKEN, UNKNOWN_TOKEN = "<pad>", "<unk>"  # with the ids 0 and 1

_PLAIN_STEPS = ({"type": "NFKC"}, {"type": "Lowercase"})
# Regular expressions of the normalizer and their replacements; the first are those of version 0.1.
_REPLACED = {
    (r"(?:https?://|www\.)\S+", " <url> "),
    (r"(?<![\p{L}\p{N}_])@[\p{L}\p{N}_]+", " <user> "),
    (r"(?<=(\p{L})\1)\1+", ""),
    *BEFORE_FOLDING,
    *UNSORTED,
    *AFTER_FOLDING,
}
# Regular expressions that cut a text into tokens.
_SPLIT = {
    r"<url>|<user>|[\p{L}\p{M}\p{N}]+|\p{RI}\p{RI}"
    r"|\p{Extended_Pictographic}\p{Emoji_Modifier}?"
    r"(?:\u200D\p{Extended_Pictographic}\p{Emoji_Modifier}?)*|\S",
    *TOKEN.values(),
}
# One character class, which may contain others: takes linear time whatever its characters are.
_CHARACTER = r"(?:[^\[\]\\]|\\[^\w\s]|\\[ \t\n\r\v\f]|\\[pP]\{\^?\w+\}|\\u[0-9A-Fa-f]{4})"
_CLASS = re.compile(rf"\[\^?(?:{_CHARACTER}|\[\^?{_CHARACTER}+\])+\]\+?")
_BEHAVIORS = ("Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext")
_MARK = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
_TRUNCATION = {"direction": "Right", "strategy": "LongestFirst", "stride": 0}
_UNUSED: Mapping[str, Any] = {"added_tokens": [], "padding": None, "post_processor": None}
_MODELS: Mapping[str, Mapping[str, Any]] = {
    "WordLevel": {},
    "BPE": {
        "dropout": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
}
_MAX_STEPS = 1_000


def check_tokenizer(content: Any) -> None:
    """Checks a tokenizer, before the `tokenizers` library reads it.

    Args:
        content: The parsed JSON text of `Tokenizer.to_str`.

    Raises:
        ValueError: A part is of another kind than those that `train` writes.
    """
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    for name, value in _UNUSED.items():
        if content.get(name, value) != value:
            raise ValueError(f"{name} must be {value}")
    if content.get("decoder") not in (None, _MARK):
        raise ValueError("the decoder is of an unknown kind")
    for name, kind, known in (
        ("normalizer", "normalizers", _is_normalization),
        ("pre_tokenizer", "pretokenizers", _is_pre_tokenization),
    ):
        for number, step in enumerate(_steps(content.get(name), kind), 1):
            if not known(step):
                raise ValueError(f"step {number} of the {name} is of an unknown kind")
    _check_truncation(content.get("truncation"))
    _check_model(content.get("model"))


def _steps(step: Any, key: str) -> list[Any]:
    """Returns the steps of a sequence, or the only step."""
    if not isinstance(step, dict) or step.get("type") != "Sequence":
        return [step]
    steps = step.get(key)
    if not isinstance(steps, list) or len(steps) > _MAX_STEPS:
        raise ValueError(f"{key} must be a list of at most {_MAX_STEPS:,} steps")
    return steps


def _is_normalization(step: Any) -> bool:
    if step in _PLAIN_STEPS:
        return True
    match step:
        case {"type": "Replace", "pattern": {"String": str(text)}, "content": str(content)}:
            return 0 < len(text) >= len(content)  # so that no sequence of steps inflates a text
        case {"type": "Replace", "pattern": {"Regex": str(regex)}, "content": str(content)}:
            if _CLASS.fullmatch(regex):
                return len(content) <= 1
            return (regex, content) in _REPLACED
    return False


def _is_pre_tokenization(step: Any) -> bool:
    if step == _MARK:
        return True
    match step:
        case {
            "type": "Split",
            "pattern": {"Regex": str(regex)},
            "behavior": str(behavior),
            "invert": bool(),
        }:
            known = regex in _SPLIT or _CLASS.fullmatch(regex) is not None
            return known and behavior in _BEHAVIORS
    return False


def _check_truncation(truncation: Any) -> None:
    if not isinstance(truncation, dict) or truncation | _TRUNCATION != truncation:
        raise ValueError("the truncation is of an unknown kind")
    max_length = truncation.get("max_length")
    if type(max_length) is not int or max_length < 1:
        raise ValueError("the maximum length must be a whole number of at least 1")


def _check_model(model: Any) -> None:
    if not isinstance(model, dict) or model.get("type") not in _MODELS:
        raise ValueError(f"the model is of an unknown kind: {' and '.join(_MODELS)} are known")
    for name, value in _MODELS[model["type"]].items():
        if model.get(name, value) != value:
            raise ValueError(f"{name} must be {value}")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or model.get("unk_token") != UNKNOWN_TOKEN:
        raise ValueError(f"the model must have a vocabulary with the token {UNKNOWN_TOKEN}")
    if (vocabulary.get(PAD_TOKEN), vocabulary.get(UNKNOWN_TOKEN)) != (0, 1):
        raise ValueError(f"{PAD_TOKEN} and {UNKNOWN_TOKEN} must have the ids 0 and 1")
    ids = vocabulary.values()
    if set(map(type, ids)) != {int} or set(ids) != set(range(len(ids))):
        raise ValueError(f"the ids of {len(ids):,} tokens must be 0 to {len(ids) - 1:,}")
