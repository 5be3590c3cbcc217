"""Order, padding and the held-out split: decided by seeds alone."""

from typing import Any

import numpy as np
import pytest

from fedit_client.data.holding_out import split
from fedit_client.training.batches import Feeding, batches_of, collate, first_fit, pack, step_rows
from fedit_client.training.tokenize import Example
from fedit_protocol.task import Batching, TrainingSpec

from .rows import letters


def example(length: int) -> Example:
    return Example(np.arange(1, length + 1), np.array([0] + [1] * (length - 1)))


def spec(**changes: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({"batch_size": 4, "micro_batch_size": 2, **changes})


def test_padding_is_neither_attended_to_nor_trained_on() -> None:
    batch = collate([example(2), example(4)], 99, "cpu")
    assert batch.ids.tolist() == [[1, 2, 99, 99], [1, 2, 3, 4]]
    assert batch.attention.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert (batch.tokens, batch.trained_tokens) == (6, 4)


def test_a_token_is_predicted_at_the_place_before_it() -> None:
    for batch in (collate([example(2), example(4)], 99, "cpu"), pack([example(2), example(4)], "cpu")):
        assert batch.ids.reshape(-1)[batch.chosen + 1].tolist() == batch.targets.tolist() == [2, 2, 3, 4]


def test_packed_rows_begin_at_position_0_and_their_first_token_is_never_predicted() -> None:
    asked = Example(np.arange(1, 4), np.ones(3, np.int64))
    batch = pack([asked, example(2)], "cpu")
    assert batch.ids.tolist() == [[1, 2, 3, 1, 2]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert (batch.chosen.tolist(), batch.targets.tolist()) == ([0, 1, 3], [2, 3, 2])
    assert (batch.tokens, batch.trained_tokens, batch.lengths) == (5, 3, (3, 2))


SHAPES = {
    Batching.PACKED: [(1, 11), (1, 11)],
    Batching.GROUPED: [(2, 3), (2, 9)],
    Batching.PADDED: [(2, 9), (2, 8)],
}


@pytest.mark.parametrize("batching", SHAPES)
def test_each_batching_puts_rows_together_in_its_own_way(batching: Batching) -> None:
    rows = [example(9), example(2), example(8), example(3)]
    batches = batches_of(rows, Feeding(batching, 2, 11, 0, "cpu"))
    assert [tuple(batch.ids.shape) for batch in batches] == SHAPES[batching]


def test_packing_fills_bins_and_a_longer_row_has_its_own() -> None:
    assert first_fit([3, 5, 2, 9, 4], 7) == [[3], [1, 2], [4, 0]]


def test_a_gpu_takes_as_many_tokens_as_the_task_allows_and_a_cpu_fewer() -> None:
    sizes: dict[str, Any] = {
        "spec": spec(micro_batch_size=4, batch_size=4),
        "cutoff_tokens": 512,
        "pad_id": 0,
        "packs": True,
    }
    assert [Feeding.of(**sizes, device=device).tokens for device in ("cuda:0", "cpu")] == [2048, 1024]


def test_a_model_that_cannot_pack_has_rows_of_like_length_together() -> None:
    assert Feeding.of(spec(), 512, 0, "cpu", packs=False).batching is Batching.GROUPED
    assert Feeding.of(spec(batching="padded"), 512, 0, "cpu", packs=False).batching is Batching.PADDED


def test_every_row_comes_once_in_a_pass() -> None:
    steps = step_rows(10, spec(local_steps=0, epochs=2.0), b"seed")
    assert [len(step) for step in steps] == [4, 4, 4, 4, 4]
    rows = [row for step in steps for row in step]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))


def test_steps_can_be_more_than_the_rows() -> None:
    steps = step_rows(3, spec(local_steps=5), b"seed")
    assert [len(step) for step in steps] == [4] * 5


def test_a_part_of_a_pass_is_a_part_of_the_rows() -> None:
    assert [len(step) for step in step_rows(10, spec(local_steps=0, epochs=0.5), b"seed")] == [4, 1]


def test_the_seed_decides_the_order() -> None:
    first, again, other = (step_rows(50, spec(local_steps=3), seed) for seed in (b"a", b"a", b"b"))
    assert first == again != other


@pytest.mark.parametrize(
    ("rows", "fraction", "least", "most"),
    [(4000, 0.05, 150, 250), (10, 0.0001, 1, 1), (2, 0.0001, 1, 1), (2, 0.5, 1, 1), (1, 0.5, 0, 0), (10, 0.0, 0, 0)],
)
def test_the_held_out_share(rows: int, fraction: float, least: int, most: int) -> None:
    records = letters(rows)
    train, kept = split(records, fraction, b"seed")
    assert least <= len(kept) <= most
    assert sorted([*train, *kept], key=lambda record: record.line) == records


@pytest.mark.parametrize("fraction", [0.0001, 0.05, 0.3])
def test_rows_that_were_trained_on_stay_so_when_rows_are_added(fraction: float) -> None:
    records = letters(200)
    trained_before = split(records[:3], fraction, b"seed")[0]
    for count in range(4, 200):
        trained = split(records[:count], fraction, b"seed")[0]
        assert all(record in trained for record in trained_before), count
        trained_before = trained


def test_the_split_does_not_depend_on_the_order_of_the_file() -> None:
    records = letters(30)
    kept = split(records, 0.2, b"seed")[1]
    assert kept == split(records[::-1], 0.2, b"seed")[1]
    assert kept != split(records, 0.2, b"other")[1]
