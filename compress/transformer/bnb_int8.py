"""LLM.int8(): linear layers except the head in 8 bits, by bitsandbytes.

Each row of weights and the activations of each token have their own scale; outlier dimensions are
computed in 16 bits. Embeddings, biases and normalization stay in fp32.

Source: Dettmers et al. (2022), LLM.int8(), https://arxiv.org/abs/2208.07339
"""

from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from compress.config import CompressConfig
from compress.origin import Origin
from featherweight.errors import requires
from transformer_eval.classifier import NUMBER_FORMAT, TransformerClassifier, load_model

# Magnitude of outliers. Source: the same paper, section 3.2.
_OUTLIER = 6.0


def quantize(origin: Origin, config: CompressConfig, workspace: Path) -> TransformerClassifier:
    """Returns a copy in int8.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    classifier: TransformerClassifier = origin.classifier
    network = rounded(classifier, "int8", load_in_8bit=True, llm_int8_threshold=_OUTLIER)
    return classifier.with_network("bnb-int8", network, workspace)


def rounded(classifier: TransformerClassifier, number_format: str, **recipe: Any) -> Any:
    """Returns a copy of the network with linear layers except the head quantized by bitsandbytes.

    It is loaded from its files with a `transformers.BitsAndBytesConfig` of the recipe;
    `number_format` is the name of the format in tables.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    with requires("transformers"):
        import bitsandbytes  # noqa: F401 - transformers' own message is long
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
    """Returns the names of the modules that compute logits from the encoder's output."""
    return [
        name
        for name, module in network.named_children()
        if module is not network.base_model and any(True for _ in module.parameters())
    ]
