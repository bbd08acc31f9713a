from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm.batching import TokenBatch, pad
from lstm.config import ModelConfig
from lstm.encoder import LSTMClassifier, LSTMEncoder
from lstm.tokenizer import PAD_ID, UNK_ID

VOCAB_SIZE, NUM_LABELS = 50, 4
CONFIG = ModelConfig(embedding_dim=6, hidden_dim=5)
NO_DROPOUT = replace(CONFIG, dropout=0.0, embedding_dropout=0.0, word_dropout=0.0)
TEXTS = [[7], [3, 4, 5, 6, 7, 8, 9, 10, 11], [12, 13], [1, 1, 1, 1], [49, 2, 30, 2, 49, 8]]

POOLINGS = ["last", "max", "mean", "attention"]
shapes = pytest.mark.parametrize(
    ("pooling", "bidirectional", "num_layers"),
    [(p, b, n) for p in POOLINGS for b in (False, True) for n in (1, 3)],
)


def classifier(config: ModelConfig, **changes: Any) -> LSTMClassifier:
    module = LSTMClassifier(VOCAB_SIZE, NUM_LABELS, replace(config, **changes))
    with torch.no_grad():
        # Larger than the initial values, so that differences are visible.
        module.embedding.weight[1:].normal_()
    return module.eval()


def logits(module: LSTMClassifier, batch: TokenBatch) -> Tensor:
    with torch.no_grad():
        return module(batch.input_ids, batch.lengths)


@shapes
def test_logits_of_a_text_do_not_depend_on_its_batch(
    pooling: str, bidirectional: bool, num_layers: int
) -> None:
    module = classifier(CONFIG, pooling=pooling, bidirectional=bidirectional, num_layers=num_layers)
    alone = torch.cat([logits(module, pad([text])) for text in TEXTS])
    assert alone.std(dim=0).min() > 1e-3  # the logits of the texts differ
    for order in ([0, 1, 2, 3, 4], [4, 2, 0], [1, 0], [3, 3, 1]):
        together = logits(module, pad([TEXTS[row] for row in order]))
        torch.testing.assert_close(together, alone[order], atol=1e-6, rtol=0)


@shapes
@pytest.mark.parametrize("filler", [PAD_ID, 9])
def test_padding_does_not_change_the_logits(
    pooling: str, bidirectional: bool, num_layers: int, filler: int
) -> None:
    module = classifier(CONFIG, pooling=pooling, bidirectional=bidirectional, num_layers=num_layers)
    batch = pad(TEXTS)
    wider = torch.full((len(TEXTS), 20), filler)
    for row, text in enumerate(TEXTS):
        wider[row, : len(text)] = torch.tensor(text)
    torch.testing.assert_close(
        logits(module, TokenBatch(wider, batch.lengths)), logits(module, batch), atol=1e-6, rtol=0
    )


def packed_reference(encoder: LSTMEncoder, input_dim: int, hidden_dim: int) -> nn.LSTM:
    reference = nn.LSTM(
        input_dim,
        hidden_dim,
        num_layers=len(encoder.forwards),
        bidirectional=encoder.directions == 2,
        batch_first=True,
    )
    weights = {}
    for suffix, layers in (("", encoder.forwards), ("_reverse", encoder.backwards)):
        for index, layer in enumerate(layers):
            for name, tensor in layer.state_dict().items():
                weights[f"{name.removesuffix('0')}{index}{suffix}"] = tensor
    reference.load_state_dict(weights)
    return reference.eval()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_are_those_of_a_packed_torch_lstm(bidirectional: bool, num_layers: int) -> None:
    encoder = LSTMEncoder(6, 5, num_layers, bidirectional, dropout=0.5).eval()
    reference = packed_reference(encoder, 6, 5)
    lengths = torch.tensor([3, 9, 1, 7])
    embedded = torch.randn(4, 9, 6)
    packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    states = encoder(embedded, lengths)
    assert states.shape == (4, 9, encoder.output_dim)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(
            states[row, :length], expected[row, :length], atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_last_pooling_uses_the_final_state_of_each_direction(bidirectional: bool) -> None:
    module = classifier(CONFIG, pooling="last", bidirectional=bidirectional, num_layers=2)
    reference = packed_reference(module.encoder, 6, 5)
    batch = pad(TEXTS)
    packed = pack_padded_sequence(
        module.embedding(batch.input_ids), batch.lengths, batch_first=True, enforce_sorted=False
    )
    final = reference(packed)[1][0]  # (layers * directions, B, H)
    features = torch.cat(list(final[-module.encoder.directions :]), dim=-1)
    torch.testing.assert_close(
        logits(module, batch), module.head(features).detach(), atol=1e-6, rtol=1e-5
    )


# Two texts of lengths 2 and 3; the padding of the first must be ignored.
STATES = torch.tensor(
    [[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]], [[0.0, 1.0], [1.0, 0.0], [5.0, 2.0]]]
)
LENGTHS = torch.tensor([2, 3])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("last", [[3.0, -2.0], [5.0, 2.0]]),
        ("max", [[3.0, -2.0], [5.0, 2.0]]),
        ("mean", [[2.0, -3.0], [2.0, 1.0]]),
    ],
)
def test_pooling_worked_by_hand(pooling: str, expected: list[list[float]]) -> None:
    module = classifier(CONFIG, pooling=pooling, bidirectional=False, hidden_dim=2)
    torch.testing.assert_close(module.pool(STATES, LENGTHS), torch.tensor(expected))


def test_last_pooling_in_both_directions_worked_by_hand() -> None:
    module = classifier(CONFIG, pooling="last", bidirectional=True, hidden_dim=1)
    # Forwards at the last token, backwards at the first.
    expected = torch.tensor([[3.0, -4.0], [5.0, 1.0]])
    torch.testing.assert_close(module.pool(STATES, LENGTHS), expected)


def test_attention_pooling_worked_by_hand() -> None:
    module = classifier(CONFIG, pooling="attention", bidirectional=False, hidden_dim=2)
    assert module.attention is not None
    with torch.no_grad():
        module.attention.weight.copy_(torch.tensor([[torch.log(torch.tensor(3.0)) / 2, 0.0]]))
        module.attention.bias.fill_(7.0)
    # Scores log(3)/2 * [1, 3] have the weights 1/4 and 3/4.
    expected = torch.tensor([0.25 * 1 + 0.75 * 3, 0.25 * -4 + 0.75 * -2])
    torch.testing.assert_close(module.pool(STATES, LENGTHS)[0], expected)


def seen_ids(module: LSTMClassifier, batch: TokenBatch) -> Tensor:
    """Returns the ids that the embedding gets."""
    seen: list[Tensor] = []
    handle = module.embedding.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    module(batch.input_ids, batch.lengths)
    handle.remove()
    return seen[0]


def test_word_dropout_reads_its_share_of_training_tokens_as_unknown() -> None:
    module = classifier(NO_DROPOUT, word_dropout=0.3).train()
    batch = pad([[2 + column % 40 for column in range(100)] for _ in range(100)])
    ids = seen_ids(module, batch)
    dropped = ids != batch.input_ids
    assert set(ids[dropped].tolist()) == {UNK_ID}
    # 10,000 tokens: the standard deviation of the share is 0.0046.
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.025)


def test_word_dropout_leaves_evaluation_alone() -> None:
    module = classifier(NO_DROPOUT, word_dropout=0.9)
    batch = pad(TEXTS)
    assert torch.equal(seen_ids(module, batch), batch.input_ids)
    assert torch.equal(logits(module, batch), logits(module, batch))


@pytest.mark.parametrize("dropout", ["dropout", "embedding_dropout", "word_dropout"])
def test_dropout_acts_in_training_only(dropout: str) -> None:
    batch = pad(TEXTS)
    module = classifier(NO_DROPOUT, **{dropout: 0.5})
    quiet = logits(module, batch)
    assert torch.equal(logits(module, batch), quiet)
    assert not torch.equal(logits(module.train(), batch), quiet)


def test_without_dropout_training_and_evaluation_are_equal() -> None:
    module, batch = classifier(NO_DROPOUT, num_layers=2), pad(TEXTS)
    quiet = logits(module, batch)
    assert torch.equal(logits(module.train(), batch), quiet)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_row_starts_at_zero_and_gets_no_gradient(pooling: str) -> None:
    module = LSTMClassifier(VOCAB_SIZE, NUM_LABELS, replace(CONFIG, pooling=pooling)).train()
    assert not module.embedding.weight[PAD_ID].any()
    batch = pad(TEXTS)
    module(batch.input_ids, batch.lengths).square().sum().backward()
    gradient = module.embedding.weight.grad
    assert gradient is not None
    assert not gradient[PAD_ID].any()
    assert gradient[49].any()


@shapes
def test_every_parameter_learns(pooling: str, bidirectional: bool, num_layers: int) -> None:
    module = classifier(
        NO_DROPOUT, pooling=pooling, bidirectional=bidirectional, num_layers=num_layers
    )
    batch = pad(TEXTS)
    module(batch.input_ids, batch.lengths)[:, 0].square().sum().backward()
    # A bias of the attention scores cancels in their softmax.
    still = {
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert still <= {"attention.bias"}


def test_parameters_of_the_default_network_worked_by_hand() -> None:
    module = LSTMClassifier(1000, 6, ModelConfig())
    lstm = 2 * 4 * 64 * (32 + 64 + 2)  # directions, gates, H, inputs + states + two biases
    total = sum(parameter.numel() for parameter in module.parameters())
    assert total == 1000 * 32 + lstm + 6 * 128 + 6
