"""An LSTM that replays CUDA graphs: a small model is otherwise limited by kernel launches."""

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

BUCKET = 16  # batches are padded to a multiple of this many tokens, so few graphs are needed
_WARM_UP_RUNS = 3  # before a capture, as PyTorch's notes on CUDA graphs recommend


@dataclass(frozen=True)
class _Graph:
    """A captured forward pass, and the tensors it reads and writes."""

    graph: torch.cuda.CUDAGraph
    input_ids: Tensor
    lengths: Tensor
    logits: Tensor


class GraphedClassifier(TextClassifier):
    """An LSTM that captures and replays one graph per batch shape (texts, padded length).

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    backend = "torch, CUDA graphs"

    def __init__(self, classifier: TextClassifier) -> None:
        vars(self).update(vars(classifier))  # shares network and tokenizer
        self.name = f"{classifier.name}, CUDA graphs"
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenizes B texts and pads them to a multiple of 16 tokens."""
        batch = super().encode(texts)
        missing = -batch.input_ids.shape[1] % BUCKET
        return TokenBatch(pad(batch.input_ids, (0, missing), value=PAD_ID), batch.lengths)

    @torch.inference_mode()
    def forward(self, batch: TokenBatch) -> FloatArray:
        """Returns the logits (B, C); captures a graph at the first batch of a shape."""
        shape = tuple(batch.input_ids.shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(batch)
        captured = self._graphs[shape]
        captured.input_ids.copy_(batch.input_ids)
        captured.lengths.copy_(batch.lengths)
        captured.graph.replay()
        logits: FloatArray = captured.logits.float().cpu().numpy()
        return logits

    def _capture(self, batch: TokenBatch) -> _Graph:
        input_ids, lengths = batch.input_ids.clone(), batch.lengths.clone()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                self.module(input_ids, lengths)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self.module(input_ids, lengths)
        return _Graph(graph, input_ids, lengths, logits)


def graphed(classifier: Classifier) -> Classifier:
    """Returns a classifier that replays CUDA graphs.

    Raises:
        UsageError: The classifier is not an LSTM, or not on a GPU.
    """
    if not isinstance(classifier, TextClassifier) or classifier.device != "cuda":
        raise UsageError(f"{classifier.name}: CUDA graphs require an LSTM run on a GPU")
    return GraphedClassifier(classifier)
