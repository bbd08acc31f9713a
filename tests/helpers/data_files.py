"""Writes and reads data files."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featherweight.data.dataset import DataConfig, Dataset, load_dataset

Pairs = Sequence[tuple[object, object]]
TRAIN: Pairs = [("a1", "joy"), ("a2", "fear"), ("a3", "anger"), ("a4", "joy")] * 5
REST: Pairs = [("b1", "fear"), ("b2", "joy")]


def write(path: Path, pairs: Pairs) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        texts, labels = zip(*pairs, strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
        return path
    if kind == "jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    elif kind == "txt":
        lines = [f"{text};{label}" for text, label in pairs]
    else:
        delimiter = "\t" if kind == "tsv" else ","
        lines = [f"{a}{delimiter}{b}" for a, b in (("text", "label"), *pairs)]
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def folder_of(path: Path, **files: Pairs) -> Path:
    for split, pairs in files.items():
        write(path / f"{split}.csv", pairs)
    return path


def load(path: Path, labels: str = "", label_names: Sequence[str] | None = None) -> Dataset:
    return load_dataset(DataConfig(data=str(path), labels=labels), label_names)
