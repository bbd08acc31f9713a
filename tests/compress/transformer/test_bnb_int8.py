import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from safetensors.torch import load_file

from compress.config import CompressConfig
from compress.transformer.bnb_int8 import head_modules, quantize
from compress.transformer.methods import METHODS
from featherweight.data.dataset import Dataset
from featherweight.errors import MissingExtraError, WeightsError
from featherweight.run import MODEL, Run
from transformer_eval.classifier import TransformerClassifier

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
# Weights 25 times wider than usual, or all texts would get nearly equal logits.
TINY = {"vocab_size": 600, "initializer_range": 0.5}
BERT = {
    **TINY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48,
}  # fmt: skip
FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": BERT,
    "distilbert": {**TINY, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "roberta": {**BERT, "max_position_embeddings": 130, "type_vocab_size": 1},
    "modernbert": {
        **BERT, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
    },
    "deberta-v2": {
        **BERT, "pooler_hidden_size": 32, "type_vocab_size": 0, "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False,
    },
    "electra": {**BERT, "embedding_size": 16},
    "albert": {**BERT, "embedding_size": 16},
}  # fmt: skip
HEADS = {
    "bert": ["classifier"], "distilbert": ["pre_classifier", "classifier"],
    "roberta": ["classifier"], "modernbert": ["head", "classifier"],
    "deberta-v2": ["pooler", "classifier"], "electra": ["classifier"], "albert": ["classifier"],
}  # fmt: skip

each_family = pytest.mark.parametrize("family", FAMILIES)


def rounded(
    folder: Path, dataset: Dataset, workspace: Path
) -> tuple[TransformerClassifier, TransformerClassifier]:
    classifier = TransformerClassifier.load(folder, "cpu")
    config = CompressConfig(method="bnb-int8")
    return classifier, quantize(classifier, Run(folder), config, dataset, workspace)


@each_family
def test_the_head_is_what_comes_after_the_encoder(folders: Mapping[str, Path], family: str) -> None:
    assert head_modules(TransformerClassifier.load(folders[family], "cpu").model) == HEADS[family]


@each_family
def test_linear_layers_are_rounded_and_the_head_is_left_alone(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    classifier, variant = rounded(folders[family], dataset, tmp_path)
    before = load_file(folders[family] / MODEL)
    after = load_file(variant.folder / MODEL)
    integers = {name for name, tensor in after.items() if tensor.dtype == torch.int8}
    linear = {
        f"{name}.weight" for name, module in classifier.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith(tuple(HEADS[family]))
    }  # fmt: skip
    assert integers == linear
    head = [name for name in before if name.startswith(tuple(HEADS[family]))]
    assert head
    assert all(torch.equal(before[name], after[name]) for name in head)
    # Each row has a scale in fp32, and each layer a byte for the order of its numbers.
    num_bytes = sum(tensor.nbytes for tensor in before.values())
    saved = sum(3 * before[name].numel() - 4 * len(before[name]) - 1 for name in integers)
    assert sum(tensor.nbytes for tensor in after.values()) == num_bytes - saved
    assert variant.size_bytes() < classifier.size_bytes()
    assert variant.num_parameters() == classifier.num_parameters()


@each_family
def test_files_give_back_the_variant(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, family: str
) -> None:
    classifier, variant = rounded(folders[family], dataset, tmp_path)
    variant.save_in(Run(tmp_path / "run"))
    loaded = TransformerClassifier.load(tmp_path / "run" / "transformer", "cpu")
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert (variant.dtype, variant.stored_dtype, loaded.dtype) == ("int8", "int8", "int8")
    assert variant.labels == classifier.labels
    exact = classifier.logits(TEXTS)
    assert not np.array_equal(variant.logits(TEXTS), exact)
    assert np.corrcoef(variant.logits(TEXTS).ravel(), exact.ravel())[0, 1] > 0.9


def test_what_it_is_called_and_that_it_promises_no_speed(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    classifier, _ = rounded(folders["bert"], dataset, tmp_path)
    method = METHODS["bnb-int8"]
    variant = method.make(
        classifier, Run(tmp_path), CompressConfig(method="bnb-int8"), dataset, tmp_path
    )
    assert variant.name == "bert (bnb-int8)"
    assert method.gain == "size only"


def test_the_origin_stays_as_it_was(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    before = TransformerClassifier.load(folders["bert"], "cpu").logits(TEXTS)
    classifier, _ = rounded(folders["bert"], dataset, tmp_path)
    assert np.array_equal(classifier.logits(TEXTS), before)
    assert not any(isinstance(it, Linear8bitLt) for it in classifier.model.modules())


def test_the_library_says_nothing(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with caplog.at_level(logging.WARNING):
        _, variant = rounded(folders["bert"], dataset, tmp_path)
        variant.logits(TEXTS)
    assert capfd.readouterr() == ("", "")
    assert not caplog.messages


def test_without_the_library_it_is_named(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, variant = rounded(folders["bert"], dataset, tmp_path)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"^bitsandbytes .*'featherweight\[transformers\]'"):
        rounded(folders["bert"], dataset, tmp_path)
    with pytest.raises(MissingExtraError, match=r"^bitsandbytes is not installed"):
        TransformerClassifier.load(variant.folder, "cpu")
    # Only it needs the library.
    TransformerClassifier.load(folders["bert"], "cpu")


def test_damaged_files_are_refused(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    _, variant = rounded(folders["bert"], dataset, tmp_path)
    folder = shutil.copytree(variant.folder, tmp_path / "damaged")
    path = folder / MODEL
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="its model cannot be loaded") as caught:
        TransformerClassifier.load(folder, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_answers_nearly_as_the_cpu(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    _, variant = rounded(folders["bert"], dataset, tmp_path)
    loaded = TransformerClassifier.load(variant.folder, "cuda")
    assert (loaded.device, loaded.dtype) == ("cuda", "int8")
    assert loaded.logits(TEXTS) == pytest.approx(variant.logits(TEXTS), abs=0.5)
