"""Order, padding and the held-out split: decided by seeds alone."""

from typing import Any

import numpy as np
import pytest

from fedit_client.training.batches import collate, micro_batches, split, step_rows
from fedit_client.training.tokenize import Example
from fedit_protocol.task import TrainingSpec

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


def test_rows_of_like_length_share_a_micro_batch() -> None:
    batches = micro_batches([example(9), example(2), example(8), example(3)], 2, 0, "cpu")
    assert [batch.ids.shape for batch in batches] == [(2, 3), (2, 9)]


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


@pytest.mark.parametrize(("rows", "fraction", "held_out"), [(100, 0.05, 5), (10, 0.05, 1), (1, 0.5, 0), (10, 0.0, 0)])
def test_the_held_out_share(rows: int, fraction: float, held_out: int) -> None:
    train, kept = split(letters(rows), fraction, b"seed")
    assert (len(train), len(kept)) == (rows - held_out, held_out)


def test_the_split_does_not_depend_on_the_order_of_the_file() -> None:
    records = letters(30)
    kept = split(records, 0.2, b"seed")[1]
    assert kept == split(records[::-1], 0.2, b"seed")[1]
    assert kept != split(records, 0.2, b"other")[1]
