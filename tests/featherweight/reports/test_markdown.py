import re

import pytest

from featherweight.reports.markdown import code, code_block, escaped

# Punctuation after a backslash stands for itself.
UNESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
TEXTS = [
    "a|b", "`code`", "*bold*", "__init__", "~~gone~~", "[x](javascript:alert(1))",
    "](javascript:x)", "![x](y.png)", "[x][y]", "[x]: y", "<script>alert(1)</script>",
    "<javascript:x>", "<!-- x",
    "&lt;", "# heading", "- item", "+ item", "> quote", "===", "---", "1. first", "\\", "\\|", "``",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_syntax_is_escaped_and_the_text_is_shown(text: str) -> None:
    shown = escaped(text)
    assert shown != text
    assert UNESCAPED.sub(r"\1", shown) == text


@pytest.mark.parametrize(
    "text",
    ["joy", "emotion-1 (distill, bundle)", "0.6201 [0.573, 0.668]", "-0.0950", "+0.0391",
     "< 0.0001", "5.77 / 8.31 *", "TF-IDF + linear SVM", "tiny_run_2", "a & b", "n = 358",
     "ünï 😂"],
)  # fmt: skip
def test_other_texts_are_unchanged(text: str) -> None:
    assert escaped(text) == text


@pytest.mark.parametrize("shown", [escaped, code])
def test_the_result_is_one_printable_line(shown: object) -> None:
    assert callable(shown)
    assert shown("a\n# b\x1b[31m\u202ec").replace("`", "") == "a # b�[31m�c"


@pytest.mark.parametrize("text", ["joy", "a`b", "``a``", "`", "a|b", "<b>", "*x*", "\\"])
def test_code_ends_at_its_own_fence(text: str) -> None:
    shown = code(text)
    match = re.fullmatch(r"(`+)(.+?)(?<!`)\1", shown)
    assert match
    fence, inner = match.groups()
    assert fence not in re.findall("`+", inner)  # a run of this length would end the code
    assert (inner[1:-1] if inner.startswith(" ") else inner) == text


def test_a_block_of_code_ends_at_its_own_fence() -> None:
    assert code_block("a\nb") == "```\na\nb\n```"
    assert code_block("a\n````\nb") == "`````\na\n````\nb\n`````"
