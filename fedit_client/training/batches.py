"""Examples → what goes through the model at once: packed or padded, in an order that a seed decides."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from fedit_client.training.tokenize import Example, Ids
from fedit_protocol.task import Batching, TrainingSpec

_CPU_TOKENS: Final = 1024
"""Tokens that a CPU takes at once: more gain nothing there, and what lies between the layers leaves the cache."""


@dataclass(frozen=True)
class Batch:
    """Rows of one pass, on the model's device; int64 throughout.

    `ids` and `positions` are (1, N) where rows are packed one behind the other, (B, T) padded on the right where not.
    Counted through `ids` from its first number, `chosen` (K,) are the places whose next token is trained on, and
    `targets` (K,) those tokens. `lengths` are the rows' own.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    chosen: torch.Tensor
    targets: torch.Tensor
    lengths: tuple[int, ...]
    packed: bool

    @property
    def attention(self) -> torch.Tensor:
        """Of padded rows, 1 where a token is real; (B, T)."""
        lengths = torch.tensor(self.lengths, device=self.ids.device)
        return (torch.arange(self.ids.shape[1], device=self.ids.device) < lengths[:, None]).long()

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(self.lengths)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss is over; the first token of a row is never predicted."""
        return len(self.targets)


@dataclass(frozen=True)
class Feeding:
    """How rows are put together: `rows` at most where padded, `tokens` at most where packed (one row may be longer)."""

    batching: Batching
    rows: int
    tokens: int
    pad_id: int
    device: str
    positions: int = 0
    """Tokens whose logits exist at once; 0 means as many as are fast on the device."""

    @classmethod
    def of(cls, spec: TrainingSpec, cutoff_tokens: int, pad_id: int, device: str, *, packs: bool) -> "Feeding":
        """Return what a task asks for: packed, as many tokens as `micro_batch_size` of the longest rows have.

        A model that cannot keep packed rows apart (`packs` is false) has them grouped: the same step, only slower.
        """
        tokens = spec.micro_batch_size * cutoff_tokens
        return cls(
            Batching.GROUPED if spec.batching is Batching.PACKED and not packs else spec.batching,
            spec.micro_batch_size,
            min(tokens, max(cutoff_tokens, _CPU_TOKENS)) if device == "cpu" else tokens,
            pad_id,
            device,
        )


def batches_of(examples: Sequence[Example], feeding: Feeding) -> Iterator[Batch]:
    """Yield all examples as batches; the sum of their losses is the same for every kind of feeding."""
    if feeding.batching is Batching.PACKED:
        for rows in first_fit([len(example.ids) for example in examples], feeding.tokens):
            yield pack([examples[row] for row in rows], feeding.device)
        return
    in_order = list(examples)
    if feeding.batching is Batching.GROUPED:
        in_order.sort(key=lambda example: len(example.ids))
    for start in range(0, len(in_order), feeding.rows):
        yield collate(in_order[start : start + feeding.rows], feeding.pad_id, feeding.device)


def collate(examples: Sequence[Example], pad_id: int, device: str) -> Batch:
    """Pad examples to the longest of them."""
    lengths = tuple(len(example.ids) for example in examples)
    ids = np.full((len(examples), max(lengths)), pad_id, np.int64)
    wanted = np.zeros(ids.shape, np.int64)
    for row, example in enumerate(examples):
        ids[row, : lengths[row]], wanted[row, : lengths[row]] = example.ids, example.loss_mask
    wanted[:, 0] = 0
    return _batch(ids, np.broadcast_to(np.arange(ids.shape[1]), ids.shape), wanted, lengths, device, packed=False)


def pack(examples: Sequence[Example], device: str) -> Batch:
    """Put examples one behind the other, each with positions from 0."""
    lengths = tuple(len(example.ids) for example in examples)
    positions = np.concatenate([np.arange(length) for length in lengths])
    wanted = np.concatenate([example.loss_mask for example in examples])
    ids = np.concatenate([example.ids for example in examples])
    wanted = np.where(positions > 0, wanted, 0)
    return _batch(ids[None], positions[None], wanted[None], lengths, device, packed=True)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Part row numbers into bins of at most `capacity` tokens: longest first, each into the first bin with room.

    First-fit decreasing (Johnson 1973): at most 11/9 of the fewest bins possible. A longer row has a bin of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        place = next((place for place, left in enumerate(room) if left >= lengths[row]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(row)
        room[place] -= lengths[row]
    return bins


def step_rows(rows: int, spec: TrainingSpec, seed: bytes) -> list[list[int]]:
    """Return the row numbers behind each optimizer step: passes over all rows, each shuffled anew by the seed."""
    total = spec.rows_trained(rows)
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed).digest(), "big"))
    stream: list[int] = []
    while len(stream) < total:
        stream.extend(int(row) for row in random.permutation(rows))
    return [stream[start : min(start + spec.batch_size, total)] for start in range(0, total, spec.batch_size)]


def _batch(ids: Ids, positions: Ids, wanted: Ids, lengths: tuple[int, ...], device: str, *, packed: bool) -> Batch:
    """`wanted` marks the tokens to predict; each is predicted at the place before it."""
    targets = np.flatnonzero(wanted)

    def there(array: Ids) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    chosen, wanted_ids = there(targets - 1), there(ids.reshape(-1)[targets])
    return Batch(there(ids), there(positions), chosen, wanted_ids, lengths, packed)
