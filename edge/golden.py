"""The texts that a bundle carries with the probabilities they must get."""

import json
import random
from collections.abc import Sequence

from edge.runtime import Bundle

_DRAWN = 44
_LONGEST = 40  # words
# What breaks tokenizers, batches and files.
EDGE_CASES = (
    "", " ", "\t\n", "a", "?!", "zzzzzzzz qqqqqq", "so happy " * 200, "\x00\x1c\x7f",
    "I'm SOOOOO happy!!! 😂😂", "👩\u200d👩\u200d👧 👍🏽 🇫🇷 ❤\ufe0f",
    "see https://example.org/a?b=c and www.example.org", "@ann told @bob_2: mail me@home",
    "<pad> <unk> <url> <user>", "naïve café, e\u0301te\u0301", "ﬁne ①②③ ＦＵＬＬ",
    "zero\u200bwidth\u00a0space\u2028line", "ich bin so glücklich", "я так счастлив",
    "我今天很开心", "أنا سعيد جدا",
)  # fmt: skip


def golden_lines(bundle: Bundle, words: Sequence[str]) -> str:
    """Returns `golden.jsonl`: one JSON object a line, of odd texts and of words drawn by chance.

    They are no texts of the data, which may be private: only its words leave with a bundle.

    Args:
        bundle: Whose answers are expected from then on.
        words: The vocabulary; 44 texts of 1 to 40 words are drawn.
    """
    chance = random.Random(0)
    drawn = [" ".join(chance.choices(words, k=chance.randint(1, _LONGEST))) for _ in range(_DRAWN)]
    golden = [*EDGE_CASES, *drawn]
    probabilities = bundle.predict_proba(golden).round(6).tolist()
    return "".join(
        json.dumps({"text": text, "probabilities": row}) + "\n"
        for text, row in zip(golden, probabilities, strict=True)
    )
