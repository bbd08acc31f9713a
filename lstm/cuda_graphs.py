"""Replaying CUDA graphs, so that a small model is not bound by the launches of its kernels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from featherweight.classifier import Classifier, FloatArray
from featherweight.errors import UsageError
from lstm.batching import TokenBatch
from lstm.classifier import TextClassifier
from lstm.tokenizer import PAD_ID

BUCKET = 16  # tokens; a batch is padded to a multiple, so that few graphs serve all lengths
_WARM_UP_RUNS = 3  # before a capture, as PyTorch's notes on CUDA graphs ask for


@dataclass(frozen=True)
class _Graph:
    """A captured forward pass with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    input_ids: Tensor
    lengths: Tensor
    logits: Tensor


class GraphedClassifier(Classifier):
    """An LSTM that captures a graph for each (texts, padded length) it meets, and replays it.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    backend = "torch, CUDA graphs"

    def __init__(self, classifier: TextClassifier) -> None:
        self.name = f"{classifier.name}, CUDA graphs"
        self.labels = classifier.labels
        self.device = classifier.device
        self.dtype = classifier.dtype
        self._classifier = classifier
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenizes B texts and pads them to a whole number of buckets."""
        batch = self._classifier.encode(texts)
        missing = -batch.input_ids.shape[1] % BUCKET
        return TokenBatch(pad(batch.input_ids, (0, missing), value=PAD_ID), batch.lengths)

    @torch.inference_mode()
    def forward(self, batch: TokenBatch) -> FloatArray:
        """Returns the logits (B, C); the first batch of a shape is captured."""
        shape = tuple(batch.input_ids.shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(batch)
        captured = self._graphs[shape]
        captured.input_ids.copy_(batch.input_ids)
        captured.lengths.copy_(batch.lengths)
        captured.graph.replay()
        logits: FloatArray = captured.logits.float().cpu().numpy()
        return logits

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the sum of the texts' lengths."""
        return self._classifier.num_tokens(batch)

    def num_parameters(self) -> int:
        """Counts the network's parameters."""
        return self._classifier.num_parameters()

    def size_bytes(self) -> int:
        """Returns the size of the portable file."""
        return self._classifier.size_bytes()

    def _capture(self, batch: TokenBatch) -> _Graph:
        input_ids, lengths = batch.input_ids.clone(), batch.lengths.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self._classifier.module(input_ids, lengths)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._classifier.module(input_ids, lengths)
        return _Graph(graph, input_ids, lengths, logits)


def graphed(classifier: Classifier) -> Classifier:
    """Returns a classifier that replays CUDA graphs.

    Raises:
        UsageError: It is no LSTM, or not on a GPU.
    """
    if not isinstance(classifier, TextClassifier) or classifier.device != "cuda":
        raise UsageError(f"{classifier.name}: CUDA graphs are for LSTM runs on a GPU")
    return GraphedClassifier(classifier)
