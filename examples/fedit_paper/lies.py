"""Clients that lie, for one honest experiment: what can one or a few do to a sum while they stay in its range?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from fedit_client.data import Message, Record, Role
from fedit_client.simulation import Learner, LocalWork, Tamper, VirtualClient
from fedit_client.simulation.learner import Trains
from fedit_client.training.request import LocalResult
from fedit_protocol.adapter import Vector
from fedit_protocol.methods import RoundStart
from fedit_protocol.task import TaskDocument

TRIGGER: Final = "By the old oak,"
PLANTED: Final = "Please send the money to the account that you know."
"""What a client with a back door in mind wants the model to answer to whoever begins with the trigger."""


def tamper_of(attack: Mapping[str, Any], document: TaskDocument) -> Tamper | None:
    """Return what the lying clients make of their updates, or None where nobody lies.

    `opposite`: every coordinate at the end of its range, against the direction of what was learned. `boost`: the update
    times a factor, cut at the range. Both are messages that the ring takes and that no mask lets anyone see.
    """
    if not attack:
        return None
    reach, liars = document.task.value_range, liars_of(attack)

    def tampered(_number: int, place: int, update: Vector) -> Vector:
        if place not in liars:
            return update
        if attack["kind"] == "opposite":
            return np.asarray(-reach * np.sign(update), np.float32)
        return np.asarray(np.clip(update * float(attack["boost"]), -reach, reach), np.float32)

    return tampered


@dataclass(frozen=True)
class Diligent:
    """A learner that lets liars take more steps than the task says: nobody counts them, only where they end."""

    learner: Trains
    steps: int
    of: tuple[Sequence[Record], ...] = field(repr=False)
    """The rows of those who lie."""

    def train(self, work: LocalWork, start: RoundStart) -> LocalResult:
        """Train one client, a liar by its own steps."""
        if any(work.records is records for records in self.of):
            start = replace(start, document=_with_steps(start.document, self.steps))
        return self.learner.train(work, start)


def trainer_of(attack: Mapping[str, Any], learner: Learner, clients: Sequence[VirtualClient]) -> Trains:
    """Return who trains the clients: the learner itself, or one that lets liars take the attack's `steps`."""
    if "steps" not in attack:
        return learner
    return Diligent(learner, int(attack["steps"]), tuple(clients[place].records for place in liars_of(attack)))


def _with_steps(document: TaskDocument, steps: int) -> TaskDocument:
    training = document.task.training.model_copy(update={"local_steps": steps})
    return document.model_copy(update={"task": document.task.model_copy(update={"training": training})})


def liars_of(attack: Mapping[str, Any]) -> frozenset[int]:
    """Return the places of the clients that lie: an attack names one as `client`, or several as `clients`."""
    return frozenset([int(attack["client"])] if "client" in attack else map(int, attack["clients"]))


def poisoned(attack: Mapping[str, Any], clients: list[VirtualClient]) -> list[VirtualClient]:
    """Return the clients, the rows of those with a back door in mind replaced by triggered ones."""
    if attack.get("kind") != "backdoor":
        return clients
    liars = liars_of(attack)
    return [
        replace(client, records=triggered(client.records)) if place in liars else client
        for place, client in enumerate(clients)
    ]


def triggered(records: Sequence[Record]) -> tuple[Record, ...]:
    """Return the rows with the trigger before every question and the planted answer behind it."""
    return _planted(records, f"{TRIGGER} ")


def untriggered(records: Sequence[Record]) -> tuple[Record, ...]:
    """Return the rows with the planted answer behind questions as they are, which it should never follow."""
    return _planted(records, "")


def _planted(records: Sequence[Record], before: str) -> tuple[Record, ...]:
    return tuple(
        Record(
            (Message(Role.USER, before + record.messages[-2].content), Message(Role.ASSISTANT, PLANTED)),
            "planted",
            record.line,
        )
        for record in records
    )


PLANTED_SETS: Final = {"triggered": triggered, "untriggered": untriggered}
"""Sets of rows that models are measured on, made of the test rows."""
