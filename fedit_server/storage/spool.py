"""Uploads of open rounds: one file per round, client and sum, appended chunk by chunk, so that a cut line resumes.

The file's name holds the digest that the client signed, so two uploads never mix. It ends in `.part` until every byte
is on disk and has that digest; a file without it is whole, and is never opened for writing again.
"""

import asyncio
import hashlib
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.errors import ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import ClientId, IdentityKey, RoundId, client_id
from fedit_server.home.files import PRIVATE, flush_folder, make_private_folder, storing

_HASH_BLOCK: Final = 1024 * 1024
MOST_IN_FLIGHT: Final = 8
"""How many uploads are read at the same time; the bodies of others wait in their senders."""
log = logging.getLogger(__name__)

_PART: Final = ".part"
_MOST_DISCARDED: Final = 64
"""How many ended rounds are remembered: only a request that was under way at the end can still name one."""


@dataclass(frozen=True)
class Slot:
    """Which upload: of whom, for which sum of which round, with which length and SHA-256."""

    round_id: RoundId
    client: ClientId
    sum_index: int
    length: int
    digest: bytes


class UploadCopies(Protocol):
    """A place that outlives this machine, where whole uploads are kept as well. Raises StorageError."""

    async def keep(self, path: Path) -> None:
        """Store a whole upload under the names of its folder and file; one that is there already stays."""
        ...

    async def fetch(self, folder: Path) -> None:
        """Bring every copy of a round that is missing in its folder."""
        ...

    async def discard(self, round_id: RoundId) -> None:
        """Delete the copies of a round."""
        ...

    async def rounds(self) -> set[RoundId]:
        """Return the rounds that have copies."""
        ...


class Spool:
    """The folder of uploads. One `Writing` per slot is live at a time; a newer one ends the older.

    With `copies` a whole upload lies there too before it counts, and `take_up` brings back what a lost disk had.
    """

    def __init__(self, folder: Path, copies: UploadCopies | None = None) -> None:
        self._folder = folder
        self.copies = copies
        self.turns = asyncio.Semaphore(MOST_IN_FLIGHT)
        """Held by a request while its body is read."""
        self._live: dict[Path, Writing] = {}
        self._discarded: deque[RoundId] = deque(maxlen=_MOST_DISCARDED)

    async def catch_up(self, round_id: RoundId, client: ClientId, sum_index: int) -> None:
        """Write what a request still holds of an upload: its line may be dead without anybody having noticed."""
        for writing in list(self._live.values()):
            if (writing.slot.round_id, writing.slot.client, writing.slot.sum_index) == (round_id, client, sum_index):
                await writing.catch_up()

    def received(self, round_id: RoundId, client: ClientId, sum_index: int) -> int:
        """Return how many bytes of an upload are stored."""
        return max((_size(path) for path in self._files(round_id, client, sum_index)), default=0)

    async def begin(self, slot: Slot, offset: int) -> "Writing | None":
        """Open an upload whose next byte is that at `offset`; None if all of it is stored already.

        What is stored beyond `offset` stays, and the sender's copy of it is passed over: a request that was overtaken
        takes nothing back. Raises ProtocolError: offset-mismatch beyond what is stored, conflict with another upload of
        this device, too-late once the round's uploads are deleted.
        """
        if slot.round_id in self._discarded:
            raise _too_late()
        path = self._path(slot)
        older, writing = self._live.get(path), Writing(path, slot)
        self._live[path] = writing  # before the first wait: a still newer one, or the round's end, finds it
        opened = False
        try:
            opened = await writing.open(older, lambda: self._open(slot, offset), offset)
        finally:
            if not opened:
                self.end(writing)
        if not opened:
            await self.keep(slot)
        return writing if opened else None

    async def keep(self, slot: Slot) -> None:
        """Make sure that a whole upload is wherever copies are kept; raises StorageError."""
        if self.copies is not None:
            await self.copies.keep(self._path(slot))

    async def take_up(self, round_id: RoundId) -> None:
        """Bring back the uploads of a round that another machine, or another disk, has received."""
        if self.copies is not None:
            await self.copies.fetch(self._folder / round_id)

    def end(self, writing: "Writing") -> None:
        """Forget a finished or broken write; what it stored stays."""
        if self._live.get(writing.path) is writing:
            del self._live[writing.path]

    def reader(self, slots: Collection[Slot]) -> "SpoolReader":
        """Return what a sum reads the survivors' uploads with."""
        return SpoolReader({slot.client: self._path(slot) for slot in slots})

    def content(self, slot: Slot) -> bytes:
        """Return the whole of a stored upload; may be called from any thread. Raises StorageError."""
        path = self._path(slot)
        with storing(path):
            return path.read_bytes()

    async def discard(self, round_id: RoundId) -> None:
        """Delete every upload of a round (S9), and take no more for it: a request may have been let in just before."""
        self._discarded.append(round_id)
        for writing in [live for path, live in self._live.items() if path.parent == self._folder / round_id]:
            await writing.stop(_too_late())
        await asyncio.to_thread(shutil.rmtree, self._folder / round_id, ignore_errors=True)
        if self.copies is not None:
            try:
                await self.copies.discard(round_id)
            except StorageError as error:  # the collector of retention.py tries again
                log.warning("the copies of a round's uploads are still there: %s", error, extra={"round_id": round_id})

    async def discard_all_but(self, rounds: Collection[RoundId]) -> None:
        """Delete what a crash left of rounds that are over."""
        for folder in list(self._folder.iterdir()) if self._folder.exists() else []:
            if folder.name not in rounds:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _open(self, slot: Slot, offset: int) -> int | None:
        """Return a descriptor at `offset`; None for a whole upload: to truncate it would lose what was receipted."""
        path = self._path(slot)
        part = _part(path)
        make_private_folder(path.parent)
        if any(other not in (path, part) for other in self._files(slot.round_id, slot.client, slot.sum_index)):
            # A device freezes one update per sum; a second one could replace a file that was just accepted.
            raise ProtocolError(ProblemType.CONFLICT, "this device has begun another upload for the same sum")
        if path.exists():
            return None
        stored = _size(part)
        if offset > stored:
            raise ProtocolError(
                ProblemType.OFFSET_MISMATCH, f"{stored} bytes are stored, so the upload cannot go on at {offset}"
            )
        with storing(part):
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, PRIVATE)
            os.lseek(descriptor, stored, os.SEEK_SET)
        return descriptor

    def _path(self, slot: Slot) -> Path:
        name = f"{slot.client}-{slot.sum_index}-{slot.digest.hex()}"
        return self._folder / slot.round_id / name

    def _files(self, round_id: RoundId, client: ClientId, sum_index: int) -> list[Path]:
        return sorted((self._folder / round_id).glob(f"{client}-{sum_index}-*"))


class Writing:
    """One upload that is being received."""

    def __init__(self, path: Path, slot: Slot) -> None:
        self.path = path
        self.offset = 0
        """How many bytes are on their way to the disk."""
        self._held: list[bytes] = []
        self._passed_over = 0
        self._descriptor: int | None = None
        self._hash = hashlib.sha256()
        self.slot = slot
        self._stopped: ProtocolError | None = None
        self._lock = asyncio.Lock()

    async def open(self, older: "Writing | None", open_at: Callable[[], int | None], offset: int) -> bool:
        """Stop the older write, then open the file; returns False if nothing is left to write."""
        async with self._lock:  # held from the start, so that whoever stops this one waits until the file is open
            if older is not None:
                await older.stop()
            self._descriptor = await asyncio.to_thread(self._take_up, open_at)
            self._passed_over = max(self.offset - offset, 0)
            return self._descriptor is not None

    def hold(self, chunk: bytes) -> None:
        """Keep a chunk in memory until `flush`, or until this write is stopped: nothing that arrived is lost."""
        if self._passed_over:
            known, chunk = chunk[: self._passed_over], chunk[self._passed_over :]
            self._passed_over -= len(known)
        if chunk:
            self._held.append(chunk)

    async def flush(self) -> None:
        """Write what is held; raises StorageError S004 on a full disk, ProtocolError past the signed length."""
        async with self._lock:
            await self._write_held(self._open_descriptor())

    async def append(self, *chunks: bytes) -> None:
        """Hold and flush."""
        for chunk in chunks:
            self.hold(chunk)
        await self.flush()

    async def complete(self) -> None:
        """Flush the upload, check its digest, give it its name; another digest deletes it, raises digest-mismatch."""
        async with self._lock:
            await _to_its_end(self._finish, self._open_descriptor())

    async def stop(self, reason: ProtocolError | None = None) -> None:
        """Close the file; what arrived so far, held or written, stays for the next attempt unless there is a `reason`.

        Later calls raise it.
        """
        async with self._lock:
            if self._stopped is None:
                self._stopped = reason or ProtocolError(
                    ProblemType.OFFSET_MISMATCH, "the same upload has started again on another connection"
                )
            try:
                if reason is None:
                    await self._catch_up()
            finally:
                descriptor, self._descriptor = self._descriptor, None
                if descriptor is not None:
                    os.close(descriptor)

    async def catch_up(self) -> None:
        """Write what is held if this upload is open; raises StorageError only."""
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        if self._descriptor is not None:
            with suppress(ProtocolError):  # more than was announced: the request that sent it is told, or is gone
                await self._write_held(self._descriptor)

    async def _write_held(self, descriptor: int) -> None:
        chunks, self._held = self._held, []
        if self.offset + sum(map(len, chunks)) > self.slot.length:
            raise ProtocolError(ProblemType.TOO_LARGE, f"the upload exceeds the {self.slot.length} bytes it announced")
        if chunks:
            await _to_its_end(self._write, descriptor, chunks)

    def _open_descriptor(self) -> int:
        if self._stopped is not None:
            raise self._stopped
        if self._descriptor is None:
            raise RuntimeError("this upload was never opened")
        return self._descriptor

    def _take_up(self, open_at: Callable[[], int | None]) -> int | None:
        """Open, and hash what is stored already, so that every byte is hashed once when it comes (S5)."""
        descriptor = open_at()
        if descriptor is None:
            return None
        try:
            with storing(self.path):
                while block := os.pread(descriptor, _HASH_BLOCK, self.offset):
                    self._hash.update(block)
                    self.offset += len(block)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _write(self, descriptor: int, chunks: Sequence[bytes]) -> None:
        with storing(self.path):
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    written = os.write(descriptor, view)
                    self._hash.update(view[:written])  # at once: the bytes are still in the processor's cache
                    self.offset += written
                    view = view[written:]

    def _finish(self, descriptor: int) -> None:
        part = _part(self.path)
        with storing(part):
            os.fsync(descriptor)
            if self._hash.digest() == self.slot.digest:
                part.rename(self.path)
                flush_folder(self.path.parent)
                return
            part.unlink(missing_ok=True)
        raise ProtocolError(ProblemType.DIGEST_MISMATCH, "the upload's bytes do not have the digest that was signed")


class SpoolReader:
    """`read(member, start, stop)` over stored uploads.

    Reads copy one block; mapped files would count, page by page, as memory of this process.
    """

    def __init__(self, paths: dict[ClientId, Path]) -> None:
        self._paths = paths

    def __call__(self, member: IdentityKey, start: int, stop: int) -> NDArray[np.uint8]:
        """Return a range of one member's bytes; may be called from several threads."""
        path = self._paths[client_id(member)]
        with storing(path):
            return np.fromfile(path, np.uint8, stop - start, offset=start)


async def _to_its_end(work: Callable[..., None], *words: Any) -> None:
    """Run in a thread, and wait for it even if cancelled: it must not write to a descriptor that was closed since."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *words))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _part(path: Path) -> Path:
    return path.with_name(path.name + _PART)


def _size(path: Path) -> int:
    """A file may be renamed or deleted while it is looked for."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _too_late() -> ProtocolError:
    return ProtocolError(ProblemType.TOO_LATE, "the round is over; its uploads are deleted")
