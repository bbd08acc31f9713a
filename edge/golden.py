"""The texts that a bundle carries with the probabilities they must get."""

import json
from collections.abc import Sequence

from edge.runtime import Bundle

_OF_VALIDATION = 44
# What breaks tokenizers, batches and files.
ODD = (
    "", " ", "\t\n", "a", "?!", "zzzzzzzz qqqqqq", "so happy " * 200, "\x00\x1c\x7f",
    "I'm SOOOOO happy!!! 😂😂", "👩\u200d👩\u200d👧 👍🏽 🇫🇷 ❤\ufe0f",
    "see https://example.org/a?b=c and www.example.org", "@ann told @bob_2: mail me@home",
    "<pad> <unk> <url> <user>", "naïve café, e\u0301te\u0301", "ﬁne ①②③ ＦＵＬＬ",
    "zero\u200bwidth\u00a0space\u2028line", "ich bin so glücklich", "я так счастлив",
    "我今天很开心", "أنا سعيد جدا",
)  # fmt: skip


def golden_lines(bundle: Bundle, texts: Sequence[str]) -> str:
    """Returns `golden.jsonl`: one JSON object a line, of odd texts and of some of validation.

    Args:
        bundle: Whose answers are expected from then on.
        texts: Those of validation; 44 are taken, evenly spread.
    """
    taken = [texts[index * len(texts) // _OF_VALIDATION] for index in range(_OF_VALIDATION)]
    golden = [*ODD, *dict.fromkeys(taken)]
    probabilities = bundle.predict_proba(golden).round(6).tolist()
    return "".join(
        json.dumps({"text": text, "probabilities": row}) + "\n"
        for text, row in zip(golden, probabilities, strict=True)
    )
