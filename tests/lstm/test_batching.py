import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm.batching import pad, shuffled_batches


def test_pad_fills_the_right_with_zeros_up_to_the_longest() -> None:
    batch = pad([[5], [7, 8, 9], [2, 3]])
    assert batch.input_ids.tolist() == [[5, 0, 0], [7, 8, 9], [2, 3, 0]]
    assert batch.lengths.tolist() == [1, 3, 2]
    assert batch.input_ids.dtype == batch.lengths.dtype == torch.int64


def test_batch_moves_both_of_its_tensors() -> None:
    batch = pad([[5], [7, 8]]).to("meta")
    assert (batch.input_ids.device.type, batch.lengths.device.type) == ("meta", "meta")


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = list(shuffled_batches(lengths, batch_size, (seed, 0)))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_same_seed_gives_the_same_order_and_another_epoch_another() -> None:
    lengths = [1 + row % 9 for row in range(200)]
    orders = [list(shuffled_batches(lengths, 8, seed)) for seed in [(3, 0), (3, 0), (3, 1), (4, 0)]]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_texts_of_similar_length_share_a_batch() -> None:
    lengths = [1 + (17 * row) % 50 for row in range(1000)]
    batches = list(shuffled_batches(lengths, 20, (0,)))
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    # Random batches would have about twice as many tokens.
    assert padded < 1.3 * sum(lengths)


def test_batches_do_not_come_in_the_order_of_their_lengths() -> None:
    lengths = list(range(1, 401))
    longest = [max(lengths[row] for row in batch) for batch in shuffled_batches(lengths, 8, (0,))]
    assert longest != sorted(longest)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_order_depends_on_the_seed_only(batch_size: int) -> None:
    lengths = [3] * 50
    first = list(shuffled_batches(lengths, batch_size, (0, 1, 2)))
    torch.manual_seed(99)
    assert list(shuffled_batches(lengths, batch_size, (0, 1, 2))) == first
