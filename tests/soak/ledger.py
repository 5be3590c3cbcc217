"""What the devices of a soak saw, and whether the server's folder agrees with it."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.ids import Digest, IdentityKey, RoundId
from fedit_protocol.messages import Roster, RoundOutcome, RoundResult, Survivors
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Task
from fedit_server.adapters.tensors import from_safetensors

from ..integration.federation import expected_adapter
from ..integration.witness import steps_of, weight_of_device

_ONE_FOR_ALL: Final = ("roster", "sharers", "survivors/1", "result")
"""Documents of which a round has one, whoever asks and however often the server was killed."""


@dataclass
class Ledger:
    """Notes what contradicts something else in `faults`; documents are kept as digests, so that hours fit in memory."""

    devices: dict[IdentityKey, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    receipted: dict[RoundId, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Round → devices that hold the server's receipt for their upload."""
    _documents: dict[tuple[RoundId, str], Digest] = field(default_factory=dict)
    _versions: dict[RoundId, int] = field(default_factory=dict)
    _members: dict[RoundId, list[int]] = field(default_factory=dict)
    _survivors: dict[RoundId, list[int]] = field(default_factory=dict)
    _results: dict[RoundId, RoundResult] = field(default_factory=dict)

    def offered(self, round_id: RoundId, device: int, version: int) -> None:
        """Note from which adapter version a device is to start; everybody in a round has the same."""
        if self._versions.setdefault(round_id, version) != version:
            self.faults.append(f"device {device} was offered round {round_id} on another version than others")

    def saw(self, path: str, received: bytes) -> None:
        """Note a document that a device fetched; another one under its name in its round is a fault (SPEC, S4)."""
        if not path.startswith("/v1/rounds/"):
            return
        round_text, _, name = path.removeprefix("/v1/rounds/").partition("/")
        round_id, digest = RoundId(round_text), digest_of(received)
        if name not in _ONE_FOR_ALL:
            return
        if (known := self._documents.get((round_id, name))) is not None:
            if known != digest:
                self.faults.append(f"the server signed two different {name} for round {round_id}")
            return
        self._documents[round_id, name] = digest
        if name == "roster":
            roster = decode(Roster, read_envelope(received, Kind.ROSTER).body)
            signers = [IdentityKey(read_envelope(member.join, Kind.JOIN).signer) for member in roster.members]
            self._members[round_id] = [self.devices[signer] for signer in signers]
        elif name == "survivors/1":
            alive = decode(Survivors, read_envelope(received, Kind.SURVIVORS).body)
            members = self._members[round_id]
            self._survivors[round_id] = [members[survivor.member] for survivor in alive.survivors]
        elif name == "result":
            self._results[round_id] = decode(RoundResult, read_envelope(received, Kind.RESULT).body)

    def check(self, home: Path, layout: AdapterLayout, tasks: Sequence[Task]) -> dict[str, Any]:
        """Hold the folder of a stopped server against everything that was seen; returns counts."""
        with closing(sqlite3.connect(home / "fedit.db")) as database:
            rounds = {
                RoundId(row[0]): (row[1], row[2], row[3], row[4])
                for row in database.execute("SELECT round_id, task_id, round_no, state, result FROM rounds")
            }
            versions = database.execute(
                "SELECT a.task_id, a.version, a.digest, a.parent_digest, r.round_id FROM adapters a LEFT JOIN rounds r"
                " ON r.task_id = a.task_id AND r.round_no = a.round_no WHERE a.version > 0 ORDER BY 1, 2"
            ).fetchall()
        self._check_results(rounds)
        open_now = Counter(task for task, _, state, _ in rounds.values() if state == "open")
        if strange := {state for _, _, state, _ in rounds.values()} - {"committed", "failed", "open"}:
            self.faults.append(f"rounds are {strange}")
        self.faults += [f"task {task} has {count} open rounds" for task, count in open_now.items() if count > 1]
        counts: dict[str, Any] = {}
        for task in tasks:
            states = Counter(state for name, _, state, _ in rounds.values() if name == task.id)
            folder = home / "adapters" / task.id
            sizes = self._check_versions(folder, layout, [row[1:] for row in versions if row[0] == task.id])
            counts[task.id] = {**states, "sums_checked": len(sizes), "smallest": min(sizes, default=0),
                               "median": float(np.median(sizes or [0])), "largest": max(sizes, default=0)}  # fmt: skip
        return counts

    def _check_results(self, rounds: dict[RoundId, tuple[str, int, str, bytes | None]]) -> None:
        for round_id, result in self._results.items():
            _, _, state, kept = rounds.get(round_id, ("", 0, "gone", None))
            if state != result.outcome.value:
                self.faults.append(f"devices saw round {round_id} {result.outcome.value}; the folder says {state}")
            if kept is None or digest_of(kept) != self._documents[round_id, "result"]:
                self.faults.append(f"the folder has another result of round {round_id} than devices were shown")

    def _check_versions(self, folder: Path, layout: AdapterLayout, versions: Sequence[tuple[Any, ...]]) -> list[int]:
        """Check that each version is the one before plus the exact mean of its survivors; return how many they were."""
        sizes: list[int] = []
        before, parent = _adapter(folder, layout, 0), None
        for number, (version, digest, parent_digest, round_id) in enumerate(versions, start=1):
            if version != number or (parent is not None and parent_digest != parent):
                self.faults.append(f"{folder.name}: version {version} follows a version that is not there")
            after, parent = _adapter(folder, layout, version), digest
            sizes.append(self._check_version(folder.name, version, RoundId(round_id), before, after))
            before = after
        return sizes

    def _check_version(self, task: str, version: int, round_id: RoundId, before: Vector, after: Vector) -> int:
        name = f"{task} {version}"
        survivors, result = self._survivors.get(round_id), self._results.get(round_id)
        if survivors is None:
            self.faults.append(f"{name}: was committed, and no device was asked to unmask it")
            return 0
        if len(set(survivors)) != len(survivors):
            self.faults.append(f"{name}: a device is in the sum twice: {sorted(survivors)}")
        if lost := self.receipted[round_id] - set(survivors):
            self.faults.append(f"{name}: lost the uploads of {sorted(lost)}, which it had receipted")
        if result is not None and (result.outcome is not RoundOutcome.COMMITTED or result.survivors != len(survivors)):
            self.faults.append(f"{name}: the result says {result.outcome.value}, {result.survivors} survivors")
        steps = {device: steps_of(device, version - 1) for device in survivors}
        weights = {device: weight_of_device(device) for device in survivors}
        if not np.array_equal(after, expected_adapter(before, steps, weights)):
            self.faults.append(f"{name}: is another sum than that of {sorted(survivors)}")
        return len(survivors)


def _adapter(folder: Path, layout: AdapterLayout, version: int) -> Vector:
    return from_safetensors(layout, (folder / str(version) / "adapter_model.safetensors").read_bytes())
