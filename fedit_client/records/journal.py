"""What this device did in which round, on disk before it happens: one mask never covers two updates (decision 0007).

Joined but not frozen when the process died: the round is lost and never joined again, for its keys were in memory only.
Frozen: the masked bytes may be sent again, the same bytes; the keys are gone, so survivors are never answered.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fedit_client.home.durable import append_durably, make_private, translating, write_atomic
from fedit_protocol.encoding import decode
from fedit_protocol.errors import StorageError
from fedit_protocol.ids import Digest, IdentityKey, RoundId
from fedit_protocol.limits import AnsweredRound, LastSeen
from fedit_protocol.messages import Offer, UploadHeader
from fedit_protocol.secagg.effects import Persist
from fedit_protocol.secagg.sensitivity import NoisySum
from fedit_protocol.signing import Envelope

_FILE: Final = "rounds.jsonl"
_KEPT: Final = frozenset({"frozen", "members", "noise", "update"})
"""The records whose bodies are needed after a restart."""


@dataclass(frozen=True)
class FrozenUpload:
    """A masked or sealed update that was frozen and has no receipt yet; contains no keys."""

    round_id: RoundId
    round_no: int
    header: bytes = field(repr=False)
    expires_at: int
    path: Path

    @property
    def sum_index(self) -> int:
        """Which of the round's sums it is for."""
        return _sum_index(self.header)

    def payload(self) -> bytes:
        """Return the masked bytes as they were frozen; raises StorageError S014 if they are not those any more."""
        with translating(self.path):
            content = self.path.read_bytes()
        header = _opened(self.header)
        if hashlib.sha256(content).digest() != header.digest:
            raise StorageError("a frozen upload is damaged on this disk", code="S014", where=str(self.path),
                               fix="fedit-client leave --erase, then join anew")  # fmt: skip
        return content


@dataclass(frozen=True)
class JoinedRound:
    """A round that this device joined: which one, on which adapter, when by its own clock."""

    round_id: RoundId
    round_no: int
    adapter_version: int
    adapter_digest: Digest
    at: int


class Journal:
    """An append-only file of one line per fact, each with a check sum; a torn last line is what a crash leaves."""

    def __init__(self, folder: Path) -> None:
        """Replay what is there; raises StorageError S014 if a line in the middle is damaged."""
        self._folder = make_private(folder)
        self._path = folder / _FILE
        self._last: LastSeen | None = None
        self._frozen: dict[RoundId, FrozenUpload] = {}
        self.rounds = 0
        """Rounds whose result this device has seen committed."""
        self.joined_at: list[int] = []
        """When this device joined each round, by its own clock, in seconds since 1970, UTC."""
        self.unsettled: JoinedRound | None = None
        """The newest round that was joined, unless its result was seen committed."""
        self.ended: tuple[int, int] | None = None
        """The task's version and last round, once the server has said that it is over."""
        self._answered: dict[RoundId, AnsweredRound] = {}
        self._noisy: list[NoisySum] = []
        self._canaries: set[Digest] = set()
        self._given: dict[str, bytes] = {"members": b"", "update": b""}
        """Of the round that runs: who its members are, and the digest of the update that was masked (C4)."""
        for fact in self._read():
            self._apply(fact)

    @property
    def last(self) -> LastSeen | None:
        """The newest round this device took part in, the newest adapter it knows, and every round it answered."""
        if self._last is None:
            return None
        return replace(self._last, **self._known())

    def _known(self) -> dict[str, Any]:
        given = frozenset(self._canaries)
        return {"answered": tuple(self._answered.values()), "noisy": tuple(self._noisy), "canaries": given}

    @property
    def unfinished(self) -> tuple[FrozenUpload, ...]:
        """Frozen uploads without a receipt, oldest first."""
        return tuple(self._frozen.values())

    def persist(self, offer: Offer, effect: Persist, now_s: int) -> None:
        """Make one record of the participant durable; its payload first, so that no record points at nothing."""
        if effect.payload is not None:
            sum_index = _sum_index(effect.record.body)
            write_atomic(self._payload_path(offer.round_id, sum_index), effect.payload)
        body = effect.record.body if effect.record.kind in _KEPT else b""
        self._append(
            {
                "kind": effect.record.kind,
                "round": offer.round_id,
                "no": offer.round_no,
                "version": offer.adapter_version,
                "digest": offer.adapter_digest,
                "expires": offer.expires_at,
                "at": now_s,
                "body": base64.b64encode(body).decode(),
            }
        )

    def commit(self, offer: Offer, version: int, digest: Digest) -> None:
        """Remember the adapter that a round ended in; the next one must follow from it."""
        fact = {
            "kind": "committed",
            "round": offer.round_id,
            "no": offer.round_no,
            "version": version,
            "digest": digest,
        }
        self._append(fact)
        self._forget(offer.round_id)

    def end(self, round_no: int, task_version: int) -> None:
        """Remember that the task is over; a round that is joined later, after all, says otherwise."""
        if self.ended != (task_version, round_no):
            self._append({"kind": "ended", "no": round_no, "version": task_version})

    def close(self, round_id: RoundId) -> None:
        """A round is over for this device: its frozen bytes are deleted and never sent again."""
        if round_id in self._frozen:
            self._append({"kind": "closed", "round": round_id})
        self._forget(round_id)

    def sweep(self) -> None:
        """Delete masked bytes that no line names, which a crash leaves; only for who holds the client's lock."""
        named = {upload.path for upload in self._frozen.values()}
        with translating(self._folder):
            for path in (*self._folder.glob("*.upload"), *self._folder.glob(".*.upload.*.new")):
                if path not in named:
                    path.unlink(missing_ok=True)

    def _forget(self, round_id: RoundId) -> None:
        for sum_index in (1, 2):
            path = self._payload_path(round_id, sum_index)
            with translating(path):
                path.unlink(missing_ok=True)

    def _payload_path(self, round_id: RoundId, sum_index: int) -> Path:
        return self._folder / f"{round_id}.{sum_index}.upload"

    def _append(self, fact: dict[str, Any]) -> None:
        append_durably(self._path, _line(fact))
        self._apply(fact)

    def _apply(self, fact: dict[str, Any]) -> None:
        match fact["kind"]:
            case "joined":
                digest, at = Digest(fact["digest"]), fact.get("at", 0)
                self.ended = None
                self.joined_at.append(at)
                self.unsettled = JoinedRound(RoundId(fact["round"]), fact["no"], fact["version"], digest, at)
                # Also in version 0 of a task: from here on this round number is spent.
                self._last = LastSeen(fact["no"], fact["version"], Digest(fact["digest"]))
            case "ended":
                self.ended = fact["version"], fact["no"]
            case "members" | "update":
                self._given[fact["kind"]] = base64.b64decode(fact["body"])
            case "noise":
                self._noisy.append(decode(NoisySum, base64.b64decode(fact["body"])))
            case "canary":
                self._canaries.add(Digest(fact["digest"]))
            case "frozen":
                round_id, header = RoundId(fact["round"]), base64.b64decode(fact["body"])
                path = self._payload_path(round_id, _sum_index(header))
                self._frozen[round_id] = FrozenUpload(round_id, fact["no"], header, fact["expires"], path)
            case "answered":
                self._answered[RoundId(fact["round"])] = AnsweredRound(
                    Digest(fact["digest"]), _identities(self._given["members"]), Digest(self._given["update"].decode())
                )
            case "receipt" | "closed":
                self._frozen.pop(RoundId(fact["round"]), None)
            case "committed":
                self._frozen.pop(RoundId(fact["round"]), None)
                self._last = LastSeen(fact["no"], fact["version"], Digest(fact["digest"]))
                self.rounds += 1
                self.unsettled = None
            case _:
                pass

    def _read(self) -> list[dict[str, Any]]:
        with translating(self._path):
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
        complete, rest = lines[:-1], lines[-1] if lines else b""
        facts = [_fact(line) for line in complete]
        torn = facts and facts[-1] is None and not rest
        if torn:
            facts.pop()
        if None in facts:
            raise StorageError(f"line {facts.index(None) + 1} of the round journal is damaged", code="S014",
                               where=str(self._path), fix="fedit-client leave --erase, then join anew")  # fmt: skip
        if rest or torn:
            # Cut off what the crash tore, so that the next line does not continue it.
            write_atomic(self._path, b"".join(_line(fact) for fact in facts if fact is not None))
        return [fact for fact in facts if fact is not None]


def _opened(header: bytes) -> UploadHeader:
    """Read a header of our own, of a masked or a sealed upload."""
    return decode(UploadHeader, decode(Envelope, header).body)


def _sum_index(header: bytes) -> int:
    return _opened(header).sum_index


def _identities(joined: bytes) -> frozenset[IdentityKey]:
    return frozenset(IdentityKey(joined[start : start + 32]) for start in range(0, len(joined), 32))


def _line(fact: dict[str, Any]) -> bytes:
    text = json.dumps(fact, sort_keys=True, separators=(",", ":"))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}\n".encode()


def _fact(line: bytes) -> dict[str, Any] | None:
    check, _, text = line.partition(b" ")
    if hashlib.sha256(text).hexdigest()[:16].encode() != check:
        return None
    fact: dict[str, Any] = json.loads(text)
    return fact
