"""A registry entry -> a model of its architecture with random weights, to be timed and no more.

Where a model's own files cannot be had, its speed and its size still can: both depend on the
architecture and on the number of tokens of a text, not on what the weights have learned.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from transformer_eval.classifier import NORMALIZER
from transformer_eval.registry import Pretrained

PAD, UNK, CLS, SEP = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MOST_TOKENS = 512
# As many as bert-base-uncased has, whatever the model: a text then has as many tokens for each.
# Source: Devlin et al. (2019), BERT, and its vocab.txt.
MOST_PIECES = 30_522
_WORD_START = "▁"


def build(model: Pretrained, texts: Sequence[str], labels: Sequence[str], folder: Path) -> None:
    """Writes a sequence classifier with random weights, and a tokenizer learned from texts.

    Equal arguments write equal files. The generators are left as they were.

    Args:
        model: Its `model_type` and `sizes` are built.
        texts: What the vocabulary is learned from, so that token counts are close to real ones.
        labels: Names of the classes, in the order of their ids.
        folder: Where to, in the format of `save_pretrained`, the weights as safetensors.
    """
    config = AutoConfig.for_model(
        model.model_type,
        **model.sizes,
        # RoBERTa counts positions from the padding id and others leave its embedding zero: the
        # ids that the published configs name belong to the published vocabularies.
        pad_token_id=SPECIAL.index(PAD),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    _stand_in_tokenizer(texts, config).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_config(config)
    if model.normalizer:
        setattr(network.config, NORMALIZER, model.normalizer)
    network.save_pretrained(folder)


def _positions(config: PreTrainedConfig) -> int:
    """Returns how many tokens a text may have: where the published model stops, at most 512."""
    # Source: fairseq: RoBERTa's positions count from the padding id, which is 1, plus one.
    unused = 2 if config.model_type == "roberta" else 0
    return min(config.max_position_embeddings - unused, MOST_TOKENS)


def _stand_in_tokenizer(texts: Sequence[str], config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    pieces = _pieces(texts, min(MOST_PIECES, config.vocab_size))
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        special_tokens=[(CLS, vocabulary[CLS]), (SEP, vocabulary[SEP])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        model_max_length=_positions(config),
        # No token types: some architectures take none, the others count none as all zero.
        model_input_names=["input_ids", "attention_mask"],
    )


def _pieces(texts: Sequence[str], size: int) -> list[str]:
    """Learns the pieces of a WordPiece vocabulary, at most `size`, the special ones first.

    They come from the trainer for BPE, with a mark at the beginning of each word: the one for
    WordPiece learns the same way, but puts ties in another order each time.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    mark = pre_tokenizers.Metaspace(_WORD_START, prepend_scheme="always", split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), mark])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    ids = tokenizer.get_vocab()
    learned = sorted(set(ids) - {_WORD_START}, key=lambda piece: ids[piece])
    pieces = [piece[1:] if piece.startswith(_WORD_START) else f"##{piece}" for piece in learned]
    return [*SPECIAL, *pieces][:size]
