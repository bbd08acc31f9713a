"""Which tokenizer files are accepted; tests/lstm/test_portable_file.py has those that are not."""

import json

from featherweight.data.tokenizer_json import check_tokenizer
from lstm.config import TokenizerConfig
from lstm.tokenizer import train_tokenizer

# As earlier versions wrote it: the names of the entities are not sorted.
APOSTROPHE = (
    "&(?:acute|apos|CloseCurlyQuote|DiacriticalAcute|DiacriticalGrave|grave|lsquo|OpenCurlyQuote|"
    "rsquo|rsquor|#0*(?:39|8216|8217|96|180)|#[xX]0*(?i:27|2018|2019|60|b4));"
)


def test_a_tokenizer_of_an_earlier_version_is_accepted() -> None:
    content = json.loads(train_tokenizer(["so happy"] * 2, TokenizerConfig()).to_str())
    step = {"type": "Replace", "pattern": {"Regex": APOSTROPHE}, "content": "'"}
    assert step not in content["normalizer"]["normalizers"]
    content["normalizer"]["normalizers"][3] = step
    check_tokenizer(content)
