"""States of a text's tokens -> one vector."""

from torch import Tensor


def mean_state(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns the mean (B, H) of states (B, T, H) over the tokens that are no padding."""
    mask = attention_mask.unsqueeze(-1)  # (B, T, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1)
