"""What a data set shows before anything is trained on it, in the sentences of EDA.ipynb.

$ python benchmarks/data.py --data dair-ai/emotion
"""

import numpy as np
from jsonargparse import auto_cli
from shared.record import write_record

from featherweight.data.checks import check
from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.exploration import figures
from featherweight.exploration import sentences as text
from lstm.config import TokenizerConfig
from lstm.tokenizer import UNK_ID, token_ids, train_tokenizer


def data(data: str, labels: str = "") -> None:
    """Looks at a data set and writes results/data-NAME.json.

    Args:
        data: Hub id, folder or file.
        labels: Label names in id order, where the data does not name its integers.
    """
    dataset = load_dataset(DataConfig(data=data, labels=labels))
    train = dataset.train
    tokenizers = {
        kind: train_tokenizer(train.texts, TokenizerConfig(tokenizer=kind))
        for kind in ("word", "bpe")
    }
    words = figures.words(tokenizers["word"], train.texts)
    lengths = np.array(list(map(len, words)))
    by_class = {
        name: float(np.median(lengths[train.labels == label]))
        for label, name in enumerate(dataset.labels)
    }
    ids = {
        (kind, split.name): token_ids(tokenizer, split.texts)[0]
        for kind, tokenizer in tokenizers.items()
        for split in dataset.splits
    }
    tokens = {key: sum(map(len, rows)) for key, rows in ids.items()}
    unknown = {
        split.name: sum(row.count(UNK_ID) for row in ids["word", split.name])
        / tokens["word", split.name]
        for split in dataset.splits
    }
    sentences = [
        text.on_typing(figures.typed_signs(train.texts)),
        *text.on_findings(check(dataset), dataset),
        text.on_balance(dataset),
        text.on_length(lengths, TokenizerConfig.max_length),
        text.on_length_by_class(figures.compare_lengths(lengths, train.labels), by_class),
        text.on_vocabulary(figures.coverage(figures.vocabulary(words), words)),
        text.on_unknown_words(
            unknown,
            tokens["bpe", "validation"] / tokens["word", "validation"],
            tokenizers["word"].get_vocab_size(),
        ),
    ]
    record = {"sentences": sentences, "unknown": unknown, "median_words": by_class}
    print(write_record(f"data-{dataset.name}", dataset.identity(), record))


if __name__ == "__main__":
    auto_cli(data, as_positional=False)
