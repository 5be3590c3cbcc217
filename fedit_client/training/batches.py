"""Examples → padded batches, in an order that a seed decides."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedit_client.data import Record
from fedit_client.training.tokenize import Example
from fedit_protocol.task import TrainingSpec


@dataclass(frozen=True)
class Batch:
    """Padded on the right: `ids`, `attention` and `loss_mask` are int64 (B, T)."""

    ids: torch.Tensor
    attention: torch.Tensor
    loss_mask: torch.Tensor

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.attention.sum())

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss is over; the first position of a row is never predicted."""
        return int(self.loss_mask[:, 1:].sum())


def collate(examples: Sequence[Example], pad_id: int, device: str) -> Batch:
    """Pad examples to the longest of them."""
    shape = (len(examples), max(len(example.ids) for example in examples))
    ids, attention, mask = np.full(shape, pad_id), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length], attention[row, :length], mask[row, :length] = example.ids, 1, example.loss_mask
    return Batch(*(torch.from_numpy(array.astype(np.int64)).to(device) for array in (ids, attention, mask)))


def step_rows(rows: int, spec: TrainingSpec, seed: bytes) -> list[list[int]]:
    """Return the row numbers behind each optimizer step: passes over all rows, each shuffled anew by the seed."""
    total = spec.local_steps * spec.batch_size or max(1, round(spec.epochs * rows))
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed).digest(), "big"))
    stream: list[int] = []
    while len(stream) < total:
        stream.extend(int(row) for row in random.permutation(rows))
    return [stream[start : min(start + spec.batch_size, total)] for start in range(0, total, spec.batch_size)]


def micro_batches(examples: Sequence[Example], size: int, pad_id: int, device: str) -> Iterator[Batch]:
    """Yield batches of at most `size` rows; rows of like length share one, since padding costs as much as text."""
    by_length = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(by_length), size):
        yield collate(by_length[start : start + size], pad_id, device)


def split(records: Sequence[Record], fraction: float, seed: bytes) -> tuple[list[Record], list[Record]]:
    """Part records into those to train on and those held out, by a hash of seed and text: the same in every round.

    At least one of two or more records is held out if the fraction is above 0, and at least one is trained on.
    """
    wanted = round(fraction * len(records)) or (1 if fraction else 0)
    count = min(wanted, len(records) - 1)
    order = sorted(range(len(records)), key=lambda place: _rank(records[place], seed))
    held_out = set(order[:count])
    return (
        [record for place, record in enumerate(records) if place not in held_out],
        [records[place] for place in order[:count]],
    )


def _rank(record: Record, seed: bytes) -> bytes:
    text = "\x1f".join(message.content for message in record.messages)
    return hashlib.sha256(hashlib.sha256(seed).digest() + text.encode()).digest()
