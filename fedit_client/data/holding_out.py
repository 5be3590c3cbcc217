"""Which rows are held out of training: decided by a seed of the device and the row's own text, the same every round."""

import hashlib
from collections.abc import Sequence
from typing import Final

from fedit_client.data.records import Record

_HASHES: Final = 2**256


def split(records: Sequence[Record], fraction: float, seed: bytes) -> tuple[list[Record], list[Record]]:
    """Part records into those to train on and those held out: each by a hash of seed and text, whatever stands beside.

    About `fraction` of the records is held out. Of two or more records at least one is, if the fraction is above 0,
    that of the lowest hash; so where records are added, none that was trained on is held out later. At least one is
    trained on, that of the highest hash: among so few records that all would be held out, and only there, it may be
    held out once more are added.
    """
    ranks = [_rank(record, seed) for record in records]
    order = sorted(range(len(records)), key=ranks.__getitem__)
    wanted = sum(rank < fraction * _HASHES for rank in ranks) or (1 if fraction else 0)
    count = min(wanted, len(records) - 1)
    held_out = set(order[:count])
    return (
        [record for place, record in enumerate(records) if place not in held_out],
        [records[place] for place in order[:count]],
    )


def _rank(record: Record, seed: bytes) -> int:
    """A number from 0 to below 2^256, evenly spread."""
    text = "\x1f".join(message.content for message in record.messages)
    return int.from_bytes(hashlib.sha256(hashlib.sha256(seed).digest() + text.encode()).digest(), "big")
