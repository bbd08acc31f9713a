"""Describes a data set in the sentences of EDA.ipynb.

$ python benchmarks/data.py --data dair-ai/emotion
"""

import numpy as np
from shared.record import run, write_record

from featherweight.data.checks import check
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.exploration import figures
from featherweight.exploration import sentences as text
from lstm.config import TokenizerConfig
from lstm.tokenizer import UNK_ID, token_ids, train_tokenizer


def data(source: DataConfig) -> None:
    """Explores a data set and writes results/data-NAME.json.

    Args:
        source: The data set.
    """
    dataset = load_dataset(source)
    train = dataset.train
    word = train_tokenizer(train.texts, TokenizerConfig(tokenizer="word"))
    bpe = train_tokenizer(train.texts, TokenizerConfig(tokenizer="bpe"))
    words = figures.words(word, train.texts)
    lengths = np.array([len(document) for document in words])
    by_class = {
        name: float(np.median(lengths[train.labels == label]))
        for label, name in enumerate(dataset.labels)
    }
    ids = {split.name: token_ids(word, split.texts)[0] for split in dataset.splits}
    unknown = {
        name: sum(row.count(UNK_ID) for row in rows) / sum(map(len, rows))
        for name, rows in ids.items()
    }
    pieces, _ = token_ids(bpe, dataset.validation.texts)
    sentences = [
        text.describe_typing(figures.typed_signs(train.texts)),
        *text.describe_findings(check(dataset), dataset),
        text.describe_balance(dataset),
        text.describe_lengths(lengths, TokenizerConfig.max_length),
        text.describe_lengths_by_class(figures.compare_lengths(lengths, train.labels), by_class),
        text.describe_vocabulary(figures.coverage(figures.vocabulary(words), words)),
        text.describe_unknown_words(
            unknown, sum(map(len, pieces)) / sum(map(len, ids["validation"])), word.get_vocab_size()
        ),
    ]
    record = {"sentences": sentences, "unknown": unknown, "median_words": by_class}
    write_record(f"data-{dataset.name}", dataset.identity(), record)


if __name__ == "__main__":
    run(data)
