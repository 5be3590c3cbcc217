"""When a round waits for nobody but devices that are gone: a server of one's own need not sit out its deadline then."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MASKED: Final = {"join": 1, "shares": 2, "ack": 3, "upload": 4, "unmask": 5}
"""Stage → how many stages a client has passed that can do no more in it."""

SEALED: Final = {"join": 2, "upload": 2}
"""The same of trusted rounds: updates are taken while other clients are awaited that have not accepted yet."""


@dataclass
class _Round:
    passed: dict[int, int] = field(default_factory=dict)
    """Client → how many of the stages the server has of it."""
    gone: dict[int, str] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)


class Stalls:
    """What this fleet's clients have done in each open round; clients by their number."""

    def __init__(self, stages: Mapping[str, int] = MASKED) -> None:
        """Know of no round."""
        self._stages, self._waits = tuple(stages), tuple(stages.values())
        self._rounds: dict[int, _Round] = {}

    def began(self, round_no: int, client: int) -> None:
        """A client takes part in a round."""
        self._rounds.setdefault(round_no, _Round()).passed.setdefault(client, 0)

    def passed(self, round_no: int, client: int, step: str) -> None:
        """The server has what a client sends at a step."""
        known = self._rounds.setdefault(round_no, _Round()).passed
        known[client] = max(known.get(client, 0), self._stages.index(step) + 1)

    def vanished(self, round_no: int, client: int) -> None:
        """A client is gone: the stage behind the last one that the server has of it will lack it."""
        known = self._rounds.setdefault(round_no, _Round())
        known.gone[client] = self._stages[min(known.passed.get(client, 0), len(self._stages) - 1)]

    def left(self, round_no: int, client: int) -> None:
        """A client's part of a round is over, and the server knows it."""
        if client not in (known := self._rounds.setdefault(round_no, _Round())).gone:
            known.passed.pop(client, None)

    def over(self, round_no: int) -> None:
        """A round is over."""
        self._rounds.pop(round_no, None)

    @property
    def stalled(self) -> tuple[int, str] | None:
        """A round, and the stage in which it waits for devices that are gone and for no others; None while it moves."""
        for number, known in self._rounds.items():
            there = [count for client, count in known.passed.items() if client not in known.gone]
            for stage, done in zip(self._stages, self._waits, strict=True):
                missed = stage in known.gone.values() and stage not in known.closed
                if missed and there and all(count == done for count in there):
                    return number, stage
        return None

    def close(self, round_no: int, stage: str) -> None:
        """The stage was ended by hand."""
        self._rounds.setdefault(round_no, _Round()).closed.add(stage)
