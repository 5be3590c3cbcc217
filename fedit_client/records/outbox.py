"""The owner's copy of every upload, as it was before masking: what left this machine, in readable form.

`000012.json` says what, when, to whom and why, with the SHA-256 of the bytes that were really sent; `000012.npz` holds
the values. Written before the first byte leaves, readable by the owner only, never with a key or a mask. The oldest
entries go when all of them together are too large.
"""

import hashlib
import io
import time
import zipfile
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fedit_client.config import ClientConfig
from fedit_client.consent.terms import size_text
from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.lock import in_turn
from fedit_client.membership.joined import Membership
from fedit_client.records.payloads import Payload, payload_lines
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.task import Mode

Kind = Literal["upload", "dry run"]
Format = Literal["npz", "safetensors"]
MEGABYTE: Final = 10**6


@dataclass(frozen=True)
class Occasion:
    """What an upload belongs to."""

    purpose: str
    task: str
    task_digest: str
    adapter_version: int
    adapter_digest: str
    round_no: int | None = None
    round_id: str = ""
    sum_index: int = 1


class OutboxEntry(BaseModel):
    """One upload of this device; `payload` are its figures, tensor by tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    number: int
    kind: Kind
    made_at: int
    """Seconds since 1970, UTC; it never leaves before that."""
    sent_at: int | None = None
    """When the server's receipt came; None: it never did, or not yet."""
    purpose: str
    receiver: str
    federation: str
    task: str
    task_digest: str
    round_no: int | None
    round_id: str
    sum_index: int
    adapter_version: int
    adapter_digest: str
    bytes: int
    sha256: str
    """Of the bytes as they went out, masked or sealed; of a dry run: empty, nothing went out."""
    payload: dict[str, Any]

    @property
    def fate(self) -> str:
        """What became of it, in words."""
        if self.kind == "dry run":
            return "dry run, nothing was sent"
        return f"sent, with a receipt of {_when(self.sent_at)}" if self.sent_at else "no receipt: lost, or not sent yet"

    def line(self) -> str:
        """The entry in one line."""
        where = f"round {self.round_no}" if self.round_no is not None else "no round"
        return f"{self.number:>4}  {_when(self.made_at)}  {self.task}  {where}  {size_text(self.bytes)}  {self.fate}"

    def lines(self) -> list[str]:
        """Where it went, why, and how it looked on the way."""
        hidden = "under masks" if self.payload["mode"] == Mode.MASKED else "sealed to the server, which read it"
        sent = f"SHA-256 of the bytes that left, {hidden}: {self.sha256}" if self.sha256 else "nothing has left"
        return [
            f"upload {self.number}: {self.purpose}",
            f"  made {_when(self.made_at)}; {self.fate}",
            f"  to {self.receiver or 'nobody'} ({self.federation or 'unnamed'})",
            f"  for task {self.task} ({self.task_digest[:19]}…)",
            f"  on adapter version {self.adapter_version} ({self.adapter_digest[:19]}…)",
            f"  {sent}",
        ]


class Outbox:
    """The folder of a device's uploads; `most_bytes` is what all of it may take."""

    def __init__(self, folder: Path, most_bytes: int, receiver: str = "", federation: str = "") -> None:
        """Create nothing; `receiver` and `federation` are noted with each upload."""
        self._folder, self._most_bytes = folder, most_bytes
        self._receiver, self._federation = receiver, federation

    def keep(self, payload: Payload, about: Occasion, sent: bytes | None) -> OutboxEntry:
        """Write one upload down before it leaves; `sent` are the bytes that will, None for a dry run.

        Raises StorageError: what cannot be written down is not sent either.
        """
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **dict(payload.tensors))
        with self._in_turn():
            number = max(self._numbers(), default=0) + 1
            entry = OutboxEntry(
                number=number,
                kind="dry run" if sent is None else "upload",
                made_at=int(time.time()),
                receiver="" if sent is None else self._receiver,
                federation=self._federation,
                bytes=payload.size,
                sha256="" if sent is None else hashlib.sha256(sent).hexdigest(),
                payload=payload.as_data(),
                **vars(about),
            )
            write_atomic(self._values(number), content.getvalue())
            self._write(entry)
            self._prune(number)
        return entry

    def note_receipt(self, sha256: str, at: int | None = None) -> None:
        """Note that the server has an upload, known by the digest of its bytes; one that is gone is no matter."""
        with self._in_turn():
            for number in reversed(self._numbers()):
                entry = self.entry(number)
                if entry.sha256 == sha256 and entry.sent_at is None:
                    self._write(entry.model_copy(update={"sent_at": int(time.time()) if at is None else at}))
                    return

    def entries(self) -> list[OutboxEntry]:
        """Return every upload that is still here, oldest first; raises StorageError S017 for a damaged one."""
        return [self.entry(number) for number in self._numbers()]

    def entry(self, number: int) -> OutboxEntry:
        """Return one upload; raises ConfigError U009 if there is none of this number, StorageError S017 if damaged."""
        path = self._facts(number)
        with translating(path):
            if not path.exists():
                raise ConfigError(f"the outbox holds no upload {number}", code="U009", fix="fedit-client outbox list")
            raw = path.read_bytes()
        try:
            return OutboxEntry.model_validate_json(raw)
        except ValidationError as error:
            raise _damaged(path) from error

    def values(self, number: int) -> dict[str, NDArray[Any]]:
        """Return the values of an upload by tensor name; raises as `entry`."""
        self.entry(number)
        path = self._values(number)
        with translating(path):
            raw = path.read_bytes()
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _damaged(path) from error

    def payload(self, number: int) -> Payload:
        """Return an upload as it was before masking."""
        data, tensors = self.entry(number).payload, self.values(number)
        return Payload(Mode(data["mode"]), tensors, data["figures"], data["unit"], data["bytes"])

    def export(self, number: int, folder: Path, kind: Format) -> list[Path]:
        """Write an upload's values and figures into a folder of the owner's, and return the two files.

        Raises ConfigError U010 rather than replace a file.
        """
        entry, values = self.entry(number), self.values(number)
        files = [folder / f"upload-{number}.{kind}", folder / f"upload-{number}.json"]
        if taken := next((path for path in files if path.exists()), None):
            raise ConfigError(f"{taken} is there already, and nothing is overwritten", code="U010",
                              fix=f"fedit-client outbox export {number} --out ANOTHER-FOLDER",
                              again="--out ANOTHER-FOLDER")  # fmt: skip
        write_atomic(files[0], _encoded(values, kind))
        write_atomic(files[1], entry.model_dump_json(indent=2).encode() + b"\n")
        return files

    def size(self) -> int:
        """Return how many bytes of this disk the outbox takes."""
        with translating(self._folder):
            return sum(path.stat().st_size for path in self._folder.glob("[0-9]*") if path.is_file())

    def _in_turn(self) -> AbstractContextManager[None]:
        """Keep a dry run from taking the number of an upload, or removing it, while it is written."""
        return in_turn(self._folder / ".lock")

    def _prune(self, newest: int) -> None:
        """Remove the oldest uploads until the rest is small enough; the newest one always stays."""
        with translating(self._folder):
            held = {number: [self._facts(number), self._values(number)] for number in self._numbers()}
            sizes = {number: sum(p.stat().st_size for p in paths if p.exists()) for number, paths in held.items()}
            for number in sorted(sizes):
                if number == newest or sum(sizes.values()) <= self._most_bytes:
                    return
                for path in held[number]:
                    path.unlink(missing_ok=True)
                del sizes[number]

    def _write(self, entry: OutboxEntry) -> None:
        write_atomic(self._facts(entry.number), entry.model_dump_json(indent=2).encode() + b"\n")

    def _numbers(self) -> list[int]:
        with translating(self._folder):
            return sorted(int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit())

    def _facts(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"

    def _values(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"


def outbox_of(config: ClientConfig, membership: Membership | None = None) -> Outbox | None:
    """Return the outbox, bound to what was joined; None where the owner wants none (`privacy.outbox`)."""
    if not config.privacy.outbox:
        return None
    receiver = f"{membership.host}:{membership.port}" if membership else ""
    federation = membership.federation.descriptor.name if membership else ""
    return Outbox(config.paths.outbox, config.privacy.outbox_max_mb * MEGABYTE, receiver, federation)


def entry_lines(outbox: Outbox, number: int, most_tensors: int) -> list[str]:
    """Return one upload in words, with its tensors."""
    return [*outbox.entry(number).lines(), *payload_lines(outbox.payload(number), most_tensors)]


def _encoded(values: dict[str, NDArray[Any]], kind: Format) -> bytes:
    if kind == "safetensors":
        from safetensors.numpy import save

        return save(values)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **values)
    return content.getvalue()


def _when(at: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _damaged(path: Path) -> StorageError:
    return StorageError("a file of the outbox cannot be read", code="S017", where=str(path), fix=f"rm {path}")
