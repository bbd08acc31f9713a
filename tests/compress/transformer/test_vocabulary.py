import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from compress.transformer.vocabulary import without_rare_pieces
from featherweight.data.dataset import Dataset
from featherweight.errors import UsageError
from transformer_eval.classifier import TransformerClassifier

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

each_family = pytest.mark.parametrize("family", ["bert", "distilbert", "electra"])


def with_tokenizer(classifier: TransformerClassifier, tokenizer: Any) -> TransformerClassifier:
    return TransformerClassifier(
        classifier.name, classifier.labels, classifier.folder, tokenizer, classifier.model, "cpu"
    )


def assert_equal_logits(
    one: TransformerClassifier, other: TransformerClassifier, texts: list[str]
) -> None:
    # The last bit of a product depends on where in memory a matrix begins.
    assert one.logits(texts) == pytest.approx(other.logits(texts), abs=1e-5)


def is_single(piece: str) -> bool:
    return len(piece.removeprefix("##")) == 1


@pytest.mark.parametrize("share", [0.4, 0.95])
def test_the_most_frequent_subwords_are_kept_with_dense_ids(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, share: float
) -> None:
    known = bert.tokenizer.get_vocab()
    smaller = without_rare_pieces(bert, dataset, share, tmp_path / "smaller")
    kept = smaller.tokenizer.get_vocab()
    assert kept.keys() < known.keys()
    assert sorted(kept.values()) == list(range(len(kept)))
    assert sorted(kept, key=known.__getitem__) == sorted(kept, key=kept.__getitem__)
    always = {piece for piece in known if piece in SPECIAL or is_single(piece)}
    assert always <= kept.keys()
    assert len(kept) == max(round(share * len(known)), len(always))
    counts = Counter(
        piece for text in dataset.train.texts for piece in bert.tokenizer.tokenize(text)
    )
    fewest = min((counts[piece] for piece in kept.keys() - always), default=None)
    if fewest is not None:
        assert max(counts[piece] for piece in known.keys() - kept.keys()) <= fewest
    before, after = (model.model.get_input_embeddings().weight for model in (bert, smaller))
    assert after.shape == (len(kept), 32)
    for piece, index in kept.items():
        assert torch.equal(after[index], before[known[piece]])


@each_family
def test_logits_of_kept_subwords_do_not_change_and_other_words_are_still_spelled(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    classifier = TransformerClassifier.load(folders[family], "cpu")
    smaller = without_rare_pieces(classifier, dataset, 0.6, tmp_path / "smaller")
    kept = smaller.tokenizer.get_vocab().keys()
    texts = [*dataset.train.texts, *dataset.validation.texts, "", "zzz", "😂"]
    pieces = [set(classifier.tokenizer.tokenize(text)) for text in texts]
    same = [text for text, tokens in zip(texts, pieces, strict=True) if tokens <= kept]
    assert len(same) >= 5
    assert_equal_logits(smaller, classifier, same)
    known = classifier.tokenizer.get_vocab()
    changed = 0
    for word in {word for text in texts for word in text.split() if word.isalpha()}:
        now = smaller.tokenizer.tokenize(word)
        changed += now != classifier.tokenizer.tokenize(word)
        if known.keys() >= {word[0], *(f"##{letter}" for letter in word[1:])}:
            assert "".join(piece.removeprefix("##") for piece in now) == word.lower()
    assert changed > 10


def test_special_tokens_may_have_any_ids(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    """The published BERT has them in the middle of its vocabulary, with unused pieces before."""
    pieces = [piece for piece in bert.tokenizer.get_vocab() if piece not in SPECIAL]
    order = ["[unused0]", "[unused1]", "[PAD]", *pieces[:50], "[UNK]", "[CLS]", "[SEP]", "[MASK]",
             *pieces[50:]]  # fmt: skip
    ids = {piece: index for index, piece in enumerate(order)}
    classifier = with_tokenizer(bert, BertTokenizer(ids, model_max_length=128))
    classifier.model.config.pad_token_id = ids["[PAD]"]
    classifier.model.config.eos_token_id = ids["[unused1]"]
    smaller = without_rare_pieces(classifier, dataset, 0.5, tmp_path / "smaller")
    tokenizer = AutoTokenizer.from_pretrained(smaller.folder, local_files_only=True)
    assert isinstance(tokenizer, BertTokenizer)
    assert tokenizer.get_vocab() == smaller.tokenizer.get_vocab()
    assert not {"[unused0]", "[unused1]"} & tokenizer.get_vocab().keys()
    new = tokenizer.get_vocab()
    for loaded in (tokenizer, smaller.tokenizer):
        assert loaded("a").input_ids == [new["[CLS]"], new["a"], new["[SEP]"]]
        assert loaded.mask_token_id == new["[MASK]"]
        assert loaded("[SEP]", add_special_tokens=False).input_ids == [new["[SEP]"]]
        padded = loaded(["a", "a a a"], padding=True).input_ids[0]
        assert padded[-2:] == [new["[PAD]"]] * 2
    config = json.loads((smaller.folder / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == len(new)
    assert config["pad_token_id"] == new["[PAD]"] == 0
    assert config.get("eos_token_id") is None
    texts = ["i am", "so"]
    assert {*classifier.tokenizer.tokenize(" ".join(texts))} <= new.keys()
    assert_equal_logits(smaller, classifier, texts)


def test_added_tokens_are_kept(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    bert.tokenizer.add_tokens(["<laughs>"])
    known = bert.tokenizer.get_vocab()
    assert known["<laughs>"] == len(known) - 1
    smaller = without_rare_pieces(bert, dataset, 0.5, tmp_path / "smaller")
    kept = smaller.tokenizer.get_vocab()
    assert kept["<laughs>"] == len(kept) - 1
    assert smaller.tokenizer.tokenize("so <laughs>")[-1] == "<laughs>"
    after = smaller.model.get_input_embeddings().weight[kept["<laughs>"]]
    assert torch.equal(after, bert.model.get_input_embeddings().weight[known["<laughs>"]])
    assert_equal_logits(smaller, bert, ["so <laughs>"])


def test_the_origin_does_not_change_and_files_are_smaller(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path
) -> None:
    before, vocabulary = bert.logits(["so happy"]), bert.tokenizer.get_vocab()
    smaller = without_rare_pieces(bert, dataset, 0.5, tmp_path / "smaller")
    assert bert.tokenizer.get_vocab() == vocabulary
    assert bert.model.config.vocab_size == 600
    assert np.array_equal(bert.logits(["so happy"]), before)
    assert smaller.size_bytes() < bert.size_bytes()
    assert smaller.max_length == bert.max_length


def bpe(texts: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def word_piece_of_roberta(_: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({token: index for index, token in enumerate(SPECIAL)}))
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


@pytest.mark.parametrize("make", [bpe, word_piece_of_roberta])
def test_other_tokenizers_are_refused_in_one_line(
    bert: TransformerClassifier, dataset: Dataset, tmp_path: Path, make: Any
) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make(dataset.train.texts), pad_token="[PAD]", unk_token="[UNK]"
    )
    classifier = with_tokenizer(bert, tokenizer)
    with pytest.raises(UsageError, match="--vocabulary fits BERT, DistilBERT and ELECTRA") as found:
        without_rare_pieces(classifier, dataset, 0.5, tmp_path / "smaller")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "smaller").exists()
