"""LLM.int8(): linear layers but the head's in 8 bits, by bitsandbytes.

Each row of weights and each token's numbers have a scale of their own; the few dimensions of a
token that stand out are computed in 16 bits. Embeddings, biases and normalization stay in fp32.

Source: Dettmers et al. (2022), LLM.int8(), https://arxiv.org/abs/2208.07339
"""

from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from compress.config import CompressConfig
from featherweight.data.dataset import Dataset
from featherweight.errors import requires
from featherweight.run import TRANSFORMER, Run
from transformer_eval.classifier import NUMBER_FORMAT, TransformerClassifier, load_model

# Source: the same paper, section 3.2: from which magnitude on a number stands out.
_OUTLIER = 6.0


def quantize(
    classifier: TransformerClassifier,
    origin: Run,
    config: CompressConfig,
    dataset: Dataset,
    workspace: Path,
) -> TransformerClassifier:
    """Returns a copy in int8.

    Args:
        classifier: In fp32.
        origin: Its run.
        config: Not needed.
        dataset: Not needed: what is rounded depends on the weights alone.
        workspace: Folder in which it is written.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    network = rounded(classifier, "int8", load_in_8bit=True, llm_int8_threshold=_OUTLIER)
    return classifier.with_network(
        f"{classifier.name} (bnb-int8)", network, workspace / TRANSFORMER
    )


def rounded(classifier: TransformerClassifier, number_format: str, **recipe: Any) -> Any:
    """Returns a copy of the network with linear layers but the head's as bitsandbytes stores them.

    Args:
        classifier: As its files have it.
        number_format: What its integers are called in tables.
        **recipe: Of `transformers.BitsAndBytesConfig`.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    with requires("transformers"):
        import bitsandbytes  # noqa: F401  (transformers would say it at length)
    network = load_model(
        AutoModelForSequenceClassification,
        classifier.folder,
        quantization_config=BitsAndBytesConfig(
            **recipe, llm_int8_skip_modules=head_modules(classifier.model)
        ),
    )
    setattr(network.config, NUMBER_FORMAT, number_format)
    return network


def head_modules(network: Any) -> list[str]:
    """Returns the names of the modules that turn what an encoder says into logits."""
    return [
        name
        for name, module in network.named_children()
        if module is not network.base_model and any(True for _ in module.parameters())
    ]
