"""Uploads of open rounds: one file per round, client and sum, appended chunk by chunk, so that a cut line resumes.

The file's name holds the digest that the client signed, so two uploads never mix.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, IdentityKey, RoundId, client_id
from fedit_server.files import PRIVATE, flush_folder, make_private_folder, storing

_HASH_BLOCK: Final = 1024 * 1024


@dataclass(frozen=True)
class Slot:
    """Which upload: of whom, for which sum of which round, with which length and SHA-256."""

    round_id: RoundId
    client: ClientId
    sum_index: int
    length: int
    digest: bytes


class Spool:
    """The folder of uploads. One `Writing` per slot is live at a time; a newer one ends the older."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._live: dict[Path, Writing] = {}

    def received(self, round_id: RoundId, client: ClientId, sum_index: int) -> int:
        """Return how many bytes of an upload are stored."""
        return max((path.stat().st_size for path in self._files(round_id, client, sum_index)), default=0)

    async def begin(self, slot: Slot, offset: int) -> "Writing":
        """Open an upload for appending at `offset`; raises ProtocolError (offset-mismatch) beyond what is stored."""
        path = self._path(slot)
        older = self._live.get(path)
        if older is not None:
            await older.stop()
        descriptor = await asyncio.to_thread(self._open, slot, offset)
        writing = Writing(path, descriptor, offset, slot)
        self._live[path] = writing
        return writing

    def end(self, writing: "Writing") -> None:
        """Forget a finished or broken write; what it stored stays."""
        if self._live.get(writing.path) is writing:
            del self._live[writing.path]

    def words(self, slot: Slot, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a stored upload as a read-only array of ring words, mapped and not loaded."""
        path = self._path(slot)
        with storing(path):
            return np.memmap(path, dtype=dtype, mode="r")

    def reader(self, slots: Collection[Slot], dtype: np.dtype[Any]) -> "SpoolReader":
        """Return what UnmaskJob.run reads the survivors' uploads with."""
        return SpoolReader({slot.client: self.words(slot, dtype) for slot in slots})

    async def discard(self, round_id: RoundId) -> None:
        """Delete every upload of a round (S9)."""
        await asyncio.to_thread(shutil.rmtree, self._folder / round_id, ignore_errors=True)

    async def discard_all_but(self, rounds: Collection[RoundId]) -> None:
        """Delete what a crash left of rounds that are over."""
        for folder in list(self._folder.iterdir()) if self._folder.exists() else []:
            if folder.name not in rounds:
                await self.discard(RoundId(folder.name))

    def _open(self, slot: Slot, offset: int) -> int:
        path = self._path(slot)
        make_private_folder(path.parent)
        stored = path.stat().st_size if path.exists() else 0
        if offset > min(stored, slot.length):
            raise ProtocolError(
                ProblemType.OFFSET_MISMATCH, f"{stored} bytes are stored, so the upload cannot go on at {offset}"
            )
        if any(other != path for other in self._files(slot.round_id, slot.client, slot.sum_index)):
            # A device freezes one update per sum; a second one could replace a file that was just accepted.
            raise ProtocolError(ProblemType.CONFLICT, "this device has begun another upload for the same sum")
        with storing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
            os.ftruncate(descriptor, offset)
            os.lseek(descriptor, offset, os.SEEK_SET)
        return descriptor

    def _path(self, slot: Slot) -> Path:
        name = f"{slot.client}-{slot.sum_index}-{slot.digest.hex()}"
        return self._folder / slot.round_id / name

    def _files(self, round_id: RoundId, client: ClientId, sum_index: int) -> list[Path]:
        return sorted((self._folder / round_id).glob(f"{client}-{sum_index}-*"))


class Writing:
    """One upload that is being received."""

    def __init__(self, path: Path, descriptor: int, offset: int, slot: Slot) -> None:
        self.path = path
        self.offset = offset
        self._descriptor = descriptor
        self._slot = slot
        self._stopped = False
        self._lock = asyncio.Lock()

    async def append(self, chunk: bytes) -> None:
        """Write a chunk; raises StorageError S004 on a full disk, ProtocolError if it exceeds the signed length."""
        async with self._lock:
            if self._stopped:
                raise ProtocolError(ProblemType.CONFLICT, "the same upload has started again on another connection")
            if self.offset + len(chunk) > self._slot.length:
                raise ProtocolError(
                    ProblemType.TOO_LARGE, f"the upload exceeds the {self._slot.length} bytes it announced"
                )
            await asyncio.to_thread(self._write, chunk)

    async def complete(self) -> None:
        """Flush the upload to disk and check its digest; another digest deletes it and raises (digest-mismatch)."""
        async with self._lock:
            if self._stopped:
                raise ProtocolError(ProblemType.CONFLICT, "the same upload has started again on another connection")
            await asyncio.to_thread(self._finish)

    async def stop(self) -> None:
        """Close the file; what arrived so far stays for the next attempt."""
        async with self._lock:
            if not self._stopped:
                self._stopped = True
                os.close(self._descriptor)

    def _write(self, chunk: bytes) -> None:
        with storing(self.path):
            view = memoryview(chunk)
            while view:
                written = os.write(self._descriptor, view)
                self.offset += written
                view = view[written:]

    def _finish(self) -> None:
        with storing(self.path):
            os.fsync(self._descriptor)
            flush_folder(self.path.parent)
            found = hashlib.sha256()
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while block := os.read(self._descriptor, _HASH_BLOCK):
                found.update(block)
        if found.digest() != self._slot.digest:
            self.path.unlink(missing_ok=True)
            raise ProtocolError(
                ProblemType.DIGEST_MISMATCH, "the upload's bytes do not have the digest that was signed"
            )


class SpoolReader:
    """`read(member, start, stop)` over mapped uploads."""

    def __init__(self, words: dict[ClientId, NDArray[Any]]) -> None:
        self._words = words

    def __call__(self, member: IdentityKey, start: int, stop: int) -> NDArray[Any]:
        """Return a range of one member's ring words."""
        return self._words[client_id(member)][start:stop]
