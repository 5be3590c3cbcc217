"""What came of each round, over all virtual clients: sums and means only, one line of rounds.jsonl for each round."""

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedit_client.fleet.stalls import MASKED, Stalls
from fedit_client.home.durable import append_durably
from fedit_client.network.metering import Traffic
from fedit_client.records.round_notes import RoundFacts
from fedit_client.training import LocalResult
from fedit_protocol.messages import RoundResult

ROUNDS_FILE: Final = "rounds.jsonl"
_LOSS: Final = "loss "
"""How `training.domains` names a domain's loss, before the domain."""


@dataclass
class Mean:
    """A mean over clients, weighted by their rows."""

    total: float = 0.0
    weight: int = 0

    def add(self, value: float | None, weight: int) -> None:
        """Take one client's value in; None counts for nothing."""
        if value is not None:
            self.total += value * weight
            self.weight += weight

    @property
    def value(self) -> float | None:
        """The mean; None of nobody."""
        return self.total / self.weight if self.weight else None


@dataclass
class RoundSoFar:
    """One round, as far as it is."""

    began: float
    clients: int = 0
    ended: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    trained: int = 0
    rows: int = 0
    tokens: int = 0
    train_s: float = 0.0
    loss: Mean = field(default_factory=Mean)
    held_out: Mean = field(default_factory=Mean)
    personal: Mean = field(default_factory=Mean)
    domains: dict[str, Mean] = field(default_factory=dict[str, Mean])
    traffic: Traffic = field(default_factory=Traffic)
    result: RoundResult | None = None
    reason: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)


Told = Callable[[dict[str, Any]], None]
ServersReport = Callable[[int], Awaitable[Mapping[str, Any]]]
"""Returns what the server reports of a round; only a server of the fleet's own is asked."""


class Tally:
    """Adds up what the clients tell; a round is written once its result is known and its last client has ended it."""

    def __init__(
        self,
        folder: Path,
        told: Told = lambda _: None,
        clock: Callable[[], float] = time.time,
        stages: Mapping[str, int] = MASKED,
        servers_report: ServersReport | None = None,
    ) -> None:
        """Write into `folder`; `told` is given each line as it is written, with what the server reports of a round."""
        self._file, self._told, self._clock = folder / ROUNDS_FILE, told, clock
        self._servers_report = servers_report
        self._waiting: deque[dict[str, Any]] = deque()
        self._rounds: dict[int, RoundSoFar] = {}
        self.stalls = Stalls(stages)
        self.committed = 0
        """Rounds written as committed by this process."""

    def began(self, round_no: int, client: int) -> None:
        """A client has begun a round."""
        self._write_failed_before(round_no)
        self._round(round_no).clients += 1
        self.stalls.began(round_no, client)

    def trained(self, round_no: int, result: LocalResult) -> RoundSoFar:
        """A client has trained; return its round."""
        known, rows = self._round(round_no), result.examples
        known.trained += 1
        known.rows += rows
        known.tokens += result.tokens
        known.train_s += train_s(result)
        known.loss.add(result.train_loss, rows)
        known.held_out.add(result.held_out_loss, rows)
        known.personal.add(result.personal_loss, rows)
        for name, loss, domain_rows in domain_losses(result):
            known.domains.setdefault(name, Mean()).add(loss, domain_rows)
        return known

    def ended(self, client: int, facts: RoundFacts, traffic: Traffic, dropped_before: str | None) -> None:
        """A round has ended for a client: with its result, or because the client vanished before a step."""
        number = facts.offer.round_no
        known = self._round(number)
        known.ended += 1
        known.traffic = Traffic(known.traffic.up + traffic.up, known.traffic.down + traffic.down)
        if dropped_before is not None:
            known.dropped[dropped_before] += 1
            self.stalls.vanished(number, client)
        else:
            known.outcomes[facts.outcome] += 1
            known.reason = known.reason or ("" if facts.outcome == "committed" else facts.reason)
            self.stalls.left(number, client)
        if facts.result is not None:
            known.result = facts.result
        if facts.outcome in {"committed", "lost"}:
            known.over.set()
        if known.result is not None and known.ended >= known.clients:
            self._write(number)

    async def until_over(self, round_no: int, at_most_s: float) -> None:
        """Wait until a client has seen the end of a round, or until so much time has passed."""
        known = self._rounds.get(round_no)
        if known is not None:
            try:
                async with asyncio.timeout(at_most_s):
                    await known.over.wait()
            except TimeoutError:
                return

    def close(self) -> None:
        """Write what is known of rounds that have no result."""
        for number in sorted(self._rounds):
            self._write(number)

    async def complete(self) -> None:
        """Write the lines that wait for the server's report; cancelled meanwhile, those that are left still wait."""
        while self._waiting and self._servers_report is not None:
            line = self._waiting[0]
            found = await self._servers_report(line["round"]) if line["adapter_version"] is not None else {}
            self._append(line | reported(found))
            self._waiting.popleft()

    def _round(self, round_no: int) -> RoundSoFar:
        return self._rounds.setdefault(round_no, RoundSoFar(self._clock()))

    def _write_failed_before(self, round_no: int) -> None:
        """A round that begins after another one says that the other one is over."""
        for number in sorted(self._rounds):
            known = self._rounds[number]
            if number < round_no and known.ended >= known.clients:
                self._write(number)

    def _write(self, number: int) -> None:
        known = self._rounds.pop(number)
        known.over.set()
        self.stalls.over(number)
        line = line_of(number, known, self._clock())
        self.committed += line["outcome"] == "committed"
        if self._servers_report is None:
            self._append(line)
        else:
            self._waiting.append(line)  # clients end in threads, where nothing can be awaited

    def _append(self, line: dict[str, Any]) -> None:
        append_durably(self._file, json.dumps(line).encode() + b"\n")
        self._told(line)


def reported(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line has of the server's report: coverage of the task's categories, and the method's figures."""
    return {
        "coverage": report.get("coverage"),
        "not_covered": list(report.get("not_covered", ())),
        "method": dict(report.get("method", {})),
    }


def line_of(number: int, known: RoundSoFar, now: float) -> dict[str, Any]:
    """Return a round's line; losses in nats per token, times in seconds, sizes in bytes of message bodies.

    What only the server knows of it is empty here (`reported`).
    """
    result = known.result
    return {
        "round": number,
        "outcome": str(result.outcome) if result else "failed",
        "reason": "" if result else known.reason,
        "adapter_version": result.adapter_version if result else None,
        "adapter_digest": result.adapter_digest if result else None,
        "clients": known.clients,
        "survivors": result.survivors if result else 0,
        "dropped": dict(known.dropped),
        "outcomes": dict(known.outcomes),
        "trained": known.trained,
        "rows": known.rows,
        "tokens": known.tokens,
        "train_loss": known.loss.value,
        "held_out_loss": known.held_out.value,
        "personal_loss": known.personal.value,
        "domain_losses": {name: known.domains[name].value for name in sorted(known.domains)},
        **reported({}),
        "train_s": round(known.train_s, 3),
        "wall_s": round(now - known.began, 3),
        "began_at": round(known.began, 3),
        "bytes_up": known.traffic.up,
        "bytes_down": known.traffic.down,
    }


def domain_losses(result: LocalResult) -> list[tuple[str, float, int]]:
    """Return the domains of the task that a client has rows of: name, loss before training (nats per token), rows."""
    names = [name.removeprefix(_LOSS) for name in result.statistics if name.startswith(_LOSS)]
    return [(name, result.statistics[f"{_LOSS}{name}"], round(result.statistics[f"rows {name}"])) for name in names]


def train_s(result: LocalResult) -> float:
    """Return the seconds that the steps of one training took: its tokens by its speed; 0 where nobody measured."""
    return result.tokens / result.tokens_per_second if result.tokens_per_second else 0.0


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a fleet's rounds; a torn last line, which a crash leaves, is passed over."""
    file = folder / ROUNDS_FILE
    if not file.exists():
        return []
    lines = file.read_text("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.endswith("}")]
