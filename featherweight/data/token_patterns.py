"""The regular expressions of a tokenizer file that `train` writes; see `lstm.tokenizer`."""

from collections.abc import Callable, Iterable
from html.entities import html5, name2codepoint

_Order = Callable[[Iterable[str]], list[str]]  # of the names of HTML entities

URL, USER = "<url>", "<user>"

_PICTOGRAPH, _FLAG, _TAGS = r"\p{Extended_Pictographic}", "\U0001f3f4", "\U000e0020-\U000e007f"
_INVISIBLE = r"\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}"
_ALPHANUMERIC = r"\p{L}\p{M}\p{N}"
# Letters of scripts without spaces; the Japanese length mark belongs to two of them.
_UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}&&\p{L}]"
)
# Where words are not separated, an @name in other letters ends before them.
_NAME = rf"[\p{{L}}\p{{N}}_&&[^{_UNSPACED}]]"

# Characters whose entities are decoded, and the result.
_DECODED = {
    "'‘’`´": "'",
    **{character: character for character in '"<>!?/()…'},
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff": "",
}


def _entities(characters: str, ordered: _Order) -> str:
    """Returns a pattern of the HTML entities of some characters, without their "&"."""
    names = ordered(n[:-1] for n, text in html5.items() if text in characters and n[-1] == ";")
    decimals = "|".join(str(ord(character)) for character in characters)
    hexadecimals = "|".join(f"{ord(character):x}" for character in characters)
    return rf"(?:{'|'.join(names)}|#0*(?:{decimals})|#[xX]0*(?i:{hexadecimals}));"


def _before_folding(ordered: _Order) -> tuple[tuple[str, str], ...]:
    return (
        # Here also the spacing accent, which NFKC would turn into a space and a combining accent.
        (rf"[{_INVISIBLE}´&&[^\s\u200d{_TAGS}]]|[{_TAGS}](?<![{_FLAG}{_TAGS}].)[{_TAGS}]*", ""),
        (rf"\u200d(?:(?!{_PICTOGRAPH})|(?<![{_PICTOGRAPH}\p{{Emoji_Modifier}}].))", ""),
        # First the ampersand, which escapes other entities.
        (f"&(?:{_entities('&', ordered)})+", "&"),
        *((f"&{_entities(characters, ordered)}", text) for characters, text in _DECODED.items()),
        # Unicode does not count the Braille blank as white space.
        (rf"&(?:{'|'.join(ordered(name2codepoint))}|#\d+|#[xX][\da-fA-F]+);|\u2800", " "),
    )


# Regular expressions of the normalizer and their replacements, before and after folding: NFKC and
# lower case.
BEFORE_FOLDING = _before_folding(sorted)
UNSORTED = _before_folding(list)  # in files of earlier versions
AFTER_FOLDING: tuple[tuple[str, str], ...] = (
    (rf"(?:https?://|www\.)[^\s{_UNSPACED}]+", f" {URL} "),
    (rf"@(?<!{_NAME}@)(?:{_NAME}+|[\p{{L}}\p{{N}}_]+)", f" {USER} "),
    # Lower-casing turns a dotted capital I into "i" and a combining dot.
    (r"'|’|‘|`|ʼ|\u0640|\u0307(?<=i.)", ""),
    (r"(\p{L})(?=\1\1)", ""),
)

# One match per token. Byte-pair encoding splits words of scripts without spaces by itself.
_WORD = {
    "word": rf"[{_ALPHANUMERIC}&&[^{_UNSPACED}]]+|{_UNSPACED}\p{{M}}*",
    "bpe": f"[{_ALPHANUMERIC}]+",
}
# Two letters or tags make a flag; emoji may have skin tones and be joined.
_OTHER_TOKEN = (
    rf"\p{{RI}}\p{{RI}}|{_FLAG}[{_TAGS}]+"
    rf"|{_PICTOGRAPH}\p{{Emoji_Modifier}}?(?:\u200d{_PICTOGRAPH}\p{{Emoji_Modifier}}?)*"
    r"|[^\s\u200d]"
)
TOKEN = {name: f"{URL}|{USER}|{word}|{_OTHER_TOKEN}" for name, word in _WORD.items()}
