"""Which rows are held out of training: decided by a seed of the device and the row's own text, the same every round."""

import hashlib
from collections.abc import Sequence

from fedit_client.data.records import Record


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
