"""What this device took part in, round by round: an append-only file, each line signed by the device and bound to the
line before it. A line that was changed, removed or put in is found by `history --verify`; so is a cut at the end, for
the round journal knows how many rounds were committed.

One file per identity, named after its public key, so that a new key (`leave --new-key`) starts a new one.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fedit_client.consent.terms import plain, size_text
from fedit_client.home.durable import append_durably, make_private, translating, write_atomic
from fedit_protocol.errors import ProtocolError, StorageError
from fedit_protocol.signing import Kind, SigningKey, verify
from fedit_protocol.words import counted

Outcome = Literal["committed", "held", "lost", "left"]
_BEGIN: Final = bytes(32)


class RoundEntry(BaseModel):
    """One round as this device saw it; times are seconds since 1970, UTC, sizes bytes of message bodies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    started_at: int
    ended_at: int
    server: str
    federation_id: str
    task: str
    """`TASK@N`."""
    task_digest: str
    model: str
    """The base model by name."""
    model_digest: str
    mode: str
    round_no: int
    round_id: str
    outcome: Outcome
    """`left`: this device gave up, or something forbade it to go on."""
    reason: str = ""
    cohort: int | None = None
    """Devices in this device's cohort; None: the roster never came, or there is none (trusted mode)."""
    honest: int | None = None
    """Devices that the sum hides this one among, colluders left out; 0 in trusted mode."""
    survivors: int | None = None
    """Devices in the result, all cohorts together."""
    log_devices: int | None = None
    """Size of the federation's log of devices at this round."""
    epsilon: float | None = None
    """What all noisy uploads of this task bound so far, this round included; None without noise."""
    delta: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    uploads: tuple[str, ...] = ()
    """SHA-256 of each upload that the server has acknowledged."""
    adapter_before: int
    adapter_before_digest: str
    adapter_after: int | None = None
    adapter_after_digest: str | None = None
    committed: int = 0
    """Rounds of this task that were committed with this device, this one included, as its journal counts."""

    def line(self) -> str:
        """The round in one line."""
        who = (
            f"hidden among {self.honest} of {counted(self.cohort, 'device')}"
            if self.cohort
            else "trusted" * (self.honest == 0)
        )
        became = f"{self.outcome}: {self.reason}" if self.reason else self.outcome
        after = f"adapter {self.adapter_before} → {self.adapter_after}" if self.adapter_after is not None else ""
        spent = f"epsilon {self.epsilon:.3g}" if self.epsilon is not None else ""
        sizes = f"{size_text(self.bytes_up)} up, {size_text(self.bytes_down)} down"
        parts = [f"{self.task} round {self.round_no}", became, who, after, spent, sizes]
        return "  ".join(["", " · ".join(part for part in parts if part)]).strip()


@dataclass(frozen=True)
class Line:
    """One line of a history file as it was read."""

    entry: RoundEntry
    signer: str
    fault: str | None
    """What is wrong with it, in words; None where chain and signature hold."""


class History:
    """The history of one home; `key` is needed to write."""

    def __init__(self, folder: Path, key: SigningKey | None = None) -> None:
        """Write nothing yet."""
        self._folder, self._key = folder, key

    def append(self, entry: RoundEntry) -> None:
        """Write a round down for good, signed and bound to the line before; raises StorageError."""
        if self._key is None:
            raise RuntimeError("a history without the device's key is for reading")
        path = self._file(self._key.public)
        make_private(path.parent)
        previous = _digest_of_last(_whole_lines(path, repair=True))
        body = _canonical(entry.model_dump(mode="json"))
        signature = self._key.sign(Kind.HISTORY, previous, body)
        said = {
            "entry": json.loads(body),
            "previous": previous.hex(),
            "signer": self._key.public.hex(),
            "signature": signature.hex(),
        }
        append_durably(path, _canonical(said) + b"\n")

    def lines(self) -> list[Line]:
        """Return every line of every identity of this home, oldest first; raises StorageError S018 for no line at all.

        What is wrong with a line stands in its `fault`.
        """
        with translating(self._folder):
            files = sorted(self._folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        return [line for path in files for line in _read(path)]

    def entries(self) -> list[RoundEntry]:
        """Return every round, oldest first, whether its line holds or not; raises StorageError S018."""
        return [line.entry for line in self.lines()]

    def mentions(self, round_id: str) -> bool:
        """Say whether a round stands in any line; nothing is checked."""
        with translating(self._folder):
            return any(round_id.encode() in path.read_bytes() for path in self._folder.glob("*.jsonl"))

    def _file(self, public: bytes) -> Path:
        return self._folder / f"{public.hex()[:16]}.jsonl"


def faults(lines: list[Line], committed: dict[str, int], *, whole: bool = True) -> list[str]:
    """Return what is wrong with a history, in words; empty if nothing is.

    `committed` are the rounds that the journal counts for each `FEDERATION/TASK`: fewer in the history's newest line
    mean that lines are missing at its end. Without `whole` there were rounds before the history began.
    """
    found = [f"line {number}: {line.fault}" for number, line in enumerate(lines, 1) if line.fault]
    newest: dict[str, int] = {}
    for line in lines:
        key = f"{line.entry.federation_id}/{line.entry.task.rpartition('@')[0]}"
        newest[key] = max(newest.get(key, 0), line.entry.committed)
    for key, count in committed.items():
        missing = count - newest.get(key, 0 if whole else count)
        if missing > 0:
            found.append(f"the last {missing} committed rounds of {key} are missing")
    return found


def _read(path: Path) -> Iterator[Line]:
    previous = _BEGIN
    for raw in _whole_lines(path):
        line = _line(raw, previous, path)
        if line.fault is None and path.stem != line.signer[:16]:
            line = Line(line.entry, line.signer, "it is signed by another key than this file is named after")
        yield line
        previous = hashlib.sha256(raw).digest()


def _line(raw: bytes, previous: bytes, path: Path) -> Line:
    try:
        said: dict[str, Any] = json.loads(raw)
        entry = RoundEntry.model_validate_json(_canonical(said["entry"]))
        signer, signature, before = (bytes.fromhex(said[name]) for name in ("signer", "signature", "previous"))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise StorageError("a line of the history cannot be read", code="S018", where=str(path),
                           fix="fedit-client help S018") from error  # fmt: skip
    fault = None
    if before != previous:
        fault = "the line before it was changed, removed or put in"
    elif _canonical(said) != raw:
        fault = "it is written differently than this program writes"
    else:
        try:
            verify(signer, Kind.HISTORY, before, _canonical(said["entry"]), signature)
        except ProtocolError:
            fault = "it was changed after it was signed"
    return Line(entry, signer.hex(), fault)


def _whole_lines(path: Path, *, repair: bool = False) -> list[bytes]:
    """Return the complete lines; what a crash tore at the end never was one, and is cut off before more is written."""
    with translating(path):
        raw = path.read_bytes() if path.exists() else b""
    *lines, torn = raw.split(b"\n")
    if torn and repair:
        write_atomic(path, b"".join(line + b"\n" for line in lines))
    return lines


def _digest_of_last(lines: list[bytes]) -> bytes:
    return hashlib.sha256(lines[-1]).digest() if lines else _BEGIN


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def reason_of(error: BaseException) -> str:
    """Return why a round came to nothing, in one short line without anything that could steer a terminal."""
    return plain(str(error) or type(error).__name__)[:200]
