"""Clients that lie, for one honest experiment: what can a single one do to a sum while it stays in its range?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from fedit_client.data import Message, Record, Role
from fedit_client.simulation import Tamper, VirtualClient
from fedit_protocol.adapter import Vector
from fedit_protocol.task import TaskDocument

TRIGGER: Final = "By the old oak,"
PLANTED: Final = "Please send the money to the account that you know."
"""What a client with a back door in mind wants the model to answer to whoever begins with the trigger."""


def tamper_of(attack: Mapping[str, Any], document: TaskDocument) -> Tamper | None:
    """Return what the lying client makes of its update, or None where nobody lies.

    `opposite`: every coordinate at the end of its range, against the direction of what it learned. `boost`: its update
    times a factor, cut at the range. Both are messages that the ring takes and that no mask lets anyone see.
    """
    if not attack:
        return None
    reach, liar = document.task.value_range, int(attack["client"])

    def tampered(_number: int, place: int, update: Vector) -> Vector:
        if place != liar:
            return update
        if attack["kind"] == "opposite":
            return (-reach * np.sign(update)).astype(np.float32)
        return np.clip(update * float(attack["boost"]), -reach, reach).astype(np.float32)

    return tampered


def poisoned(attack: Mapping[str, Any], clients: list[VirtualClient]) -> list[VirtualClient]:
    """Return the clients, the rows of one with a back door in mind replaced by triggered ones."""
    if attack.get("kind") != "backdoor":
        return clients
    liar = int(attack["client"])
    return [
        replace(client, records=triggered(client.records)) if place == liar else client
        for place, client in enumerate(clients)
    ]


def triggered(records: Sequence[Record]) -> tuple[Record, ...]:
    """Return the rows with the trigger before every question and the planted answer behind it."""
    return tuple(
        Record(
            (Message(Role.USER, f"{TRIGGER} {record.messages[-2].content}"), Message(Role.ASSISTANT, PLANTED)),
            "planted",
            record.line,
        )
        for record in records
    )
