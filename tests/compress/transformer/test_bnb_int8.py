import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from safetensors.torch import load_file

from compress.transformer.bnb_int8 import head_modules
from compress.transformer.methods import METHODS
from featherweight.data.dataset import Dataset
from featherweight.errors import MissingExtraError, WeightsError
from featherweight.run import MODEL, Run
from tests.helpers.variants import FAMILIES, made
from transformer_eval.classifier import TransformerClassifier

TEXTS = ["so happy 😂", "", "zzz", "i miss my dog, i feel so alone", "why, why, why???"]
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
    return classifier, made(classifier, dataset, workspace, "bnb-int8")


@each_family
def test_modules_of_the_head(folders: Mapping[str, Path], family: str) -> None:
    assert head_modules(TransformerClassifier.load(folders[family], "cpu").model) == HEADS[family]


@each_family
def test_linear_layers_except_the_head_are_rounded_and_saved(
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
    # Each row has a scale in fp32, and each layer one byte for its memory layout.
    num_bytes = sum(tensor.nbytes for tensor in before.values())
    saved = sum(3 * before[name].numel() - 4 * len(before[name]) - 1 for name in integers)
    assert sum(tensor.nbytes for tensor in after.values()) == num_bytes - saved
    assert variant.size_bytes() < classifier.size_bytes()
    assert variant.num_parameters() == classifier.num_parameters()

    # Its files give the same logits, close to those of the origin.
    variant.save_in(Run(tmp_path / "run"))
    loaded = TransformerClassifier.load(tmp_path / "run" / "transformer", "cpu")
    assert np.array_equal(loaded.logits(TEXTS), variant.logits(TEXTS))
    assert (variant.dtype, variant.stored_dtype, loaded.dtype) == ("int8", "int8", "int8")
    assert variant.labels == classifier.labels
    exact = classifier.logits(TEXTS)
    assert not np.array_equal(variant.logits(TEXTS), exact)
    assert np.corrcoef(variant.logits(TEXTS).ravel(), exact.ravel())[0, 1] > 0.9


def test_the_origin_does_not_change_and_nothing_is_printed(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    before = TransformerClassifier.load(folders["bert"], "cpu").logits(TEXTS)
    with caplog.at_level(logging.WARNING):
        classifier, variant = rounded(folders["bert"], dataset, tmp_path)
        variant.logits(TEXTS)
    assert capfd.readouterr() == ("", "")
    assert not caplog.messages
    assert np.array_equal(classifier.logits(TEXTS), before)
    assert not any(isinstance(module, Linear8bitLt) for module in classifier.model.modules())
    assert variant.name == "bert (bnb-int8)"
    assert METHODS["bnb-int8"].gain == "size only"
    assert not METHODS["bnb-int8"].faster_on_cpu


def test_a_missing_library_is_named(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, variant = rounded(folders["bert"], dataset, tmp_path)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"^bitsandbytes .*'featherweight\[transformers\]'"):
        rounded(folders["bert"], dataset, tmp_path)
    with pytest.raises(MissingExtraError, match=r"^bitsandbytes is not installed"):
        TransformerClassifier.load(variant.folder, "cpu")
    # Other transformers do not need the library.
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
def test_logits_on_cuda_are_close_to_those_on_the_cpu(
    folders: Mapping[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    _, variant = rounded(folders["bert"], dataset, tmp_path)
    loaded = TransformerClassifier.load(variant.folder, "cuda")
    assert (loaded.device, loaded.dtype) == ("cuda", "int8")
    assert loaded.logits(TEXTS) == pytest.approx(variant.logits(TEXTS), abs=0.5)
