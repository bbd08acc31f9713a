"""Builds a registry model with random weights, to measure speed and size without its files.

Both depend on the architecture and the number of tokens of a text, not on the values of weights.
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

from transformer_eval.classifier import MAX_LENGTH, NORMALIZER
from transformer_eval.registry import Pretrained

PAD, UNK, CLS, SEP = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# The size of bert-base-uncased for every model, so that a text has the same number of tokens.
# Source: Devlin et al. (2019), BERT, and its vocab.txt.
_MAX_PIECES = 30_522
_WORD_START = "▁"


def build(model: Pretrained, texts: Sequence[str], labels: Sequence[str], folder: Path) -> None:
    """Writes a sequence classifier with random weights, and a tokenizer trained on texts.

    Equal arguments write equal files. The states of random generators are not changed.

    Args:
        model: Registry entry with the architecture.
        texts: Training texts of the tokenizer, so that token counts are realistic.
        labels: Class names, in id order.
        folder: Where the files are written, in the format of `save_pretrained` with safetensors.
    """
    config = AutoConfig.for_model(
        model.model_type,
        **model.sizes,
        # RoBERTa's positions and the zero embedding depend on the padding id, which differs from
        # the published configs because the vocabulary does.
        pad_token_id=SPECIAL.index(PAD),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    _train_tokenizer(texts, config).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_config(config)
    if model.normalizer:
        setattr(network.config, NORMALIZER, model.normalizer)
    network.save_pretrained(folder)


def _train_tokenizer(texts: Sequence[str], config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    pieces = _pieces(texts, min(_MAX_PIECES, config.vocab_size))
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, vocabulary[CLS]), (SEP, vocabulary[SEP])]
    )
    # Source: fairseq: RoBERTa's positions start at the padding id, which is 1, plus one.
    unused = 2 if config.model_type == "roberta" else 0
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        model_max_length=min(config.max_position_embeddings - unused, MAX_LENGTH),
        # No token types: some architectures have none, and the others default to zero.
        model_input_names=["input_ids", "attention_mask"],
    )


def _pieces(texts: Sequence[str], size: int) -> list[str]:
    """Returns a WordPiece vocabulary of at most `size` pieces, special tokens first.

    It is trained as BPE with marked word starts because the equivalent WordPiece trainer breaks
    ties in a random order.
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
