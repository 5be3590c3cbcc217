"""One backup is one tar file: database, descriptor and blobs in clear, a manifest of digests, keys sealed beside it.

The manifest comes behind what it lists, so that writing needs one pass; the sealed keys come last and open only beside
exactly this manifest, which is how somebody with the passphrase can tell that nothing in the file was exchanged.
"""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_protocol.errors import StorageError
from fedit_server.backup.sealing import seal
from fedit_server.home.files import PRIVATE, flush_folder, storing

DATABASE: Final = "fedit.db"
DUMP: Final = "database.dump"
BLOBS: Final = "blobs/"
_MANIFEST: Final = "manifest.json"
_KEYS: Final = "keys.sealed"
_MOST_SMALL_BYTES: Final = 64 * 1024 * 1024
_NAMES: Final = re.compile(
    r"(fedit\.db|database\.dump|descriptor\.cbor|successions\.cbor|blobs/[0-9a-f]{64})", re.ASCII
)
_BLOCK: Final = 1024 * 1024


class Entry(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a backup holds, and of when it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fedit-backup/1"] = "fedit-backup/1"
    created_at: int = Field(description="seconds since 1970, UTC")
    program: str = Field(description="the version of FedIT that made it")
    federation_id: str
    open_rounds: int = Field(ge=0, description="rounds that were running; a restore closes them")
    files: dict[str, Entry]


class Writing:
    """A backup that is being written, readable by its owner only; it gets its name when it is whole."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path, self._tar = path, tar
        self._files: dict[str, Entry] = {}

    def add(self, name: str, content: bytes) -> None:
        """Add a file from memory; one that is there already is left out."""
        if name not in self._files:
            self._files[name] = Entry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
            self._add(name, len(content), io.BytesIO(content))

    def add_file(self, name: str, path: Path) -> None:
        """Add a file from the disk; it must not change meanwhile."""
        with storing(path), path.open("rb") as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
            file.seek(0)
            self._files[name] = Entry(size=size, sha256=digest)
            self._add(name, size, file)

    def finish(self, about: Mapping[str, str | int], secret: Mapping[str, bytes], passphrase: str) -> Manifest:
        """Write the manifest and the sealed keys."""
        manifest = Manifest.model_validate({**about, "files": self._files})
        written = manifest.model_dump_json(indent=1).encode()
        self._add(_MANIFEST, len(written), io.BytesIO(written))
        sealed = seal(secret, passphrase, written)
        self._add(_KEYS, len(sealed), io.BytesIO(sealed))
        return manifest

    def _add(self, name: str, size: int, content: "io.BufferedIOBase | io.BufferedReader") -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, PRIVATE
        with storing(self.path):
            self._tar.addfile(entry, content)


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    """Write a new backup at `path`, which must not exist; a broken one leaves nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storing(path):
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                yield Writing(path, tar)
            with storing(path):
                file.flush()
                os.fsync(file.fileno())
        with storing(path):
            os.link(beside, path)  # fails where a file of this name has appeared meanwhile
            flush_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[tuple[Manifest, bytes, bytes, "Contents"]]:
    """Open a backup; yields its manifest, the manifest's bytes, the sealed keys, and its files. Raises S103, S001."""
    try:
        with storing(path), tarfile.open(path, mode="r:") as tar:
            members = {member.name: member for member in tar.getmembers() if member.isreg()}
            written, sealed = (_small(tar, members, name) for name in (_MANIFEST, _KEYS))
            manifest = Manifest.model_validate_json(written)
            listed = manifest.files.keys()
            if listed != members.keys() - {_MANIFEST, _KEYS} or not all(map(_NAMES.fullmatch, listed)):
                raise damaged(path, "it does not hold what its manifest lists")
            yield manifest, written, sealed, Contents(path, tar, manifest)
    except (tarfile.TarError, ValidationError, EOFError, KeyError) as error:
        raise damaged(path, "it is cut off, or no backup of FedIT") from error


class Contents:
    """The files of a backup that is open."""

    def __init__(self, path: Path, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self._path, self._tar, self._manifest = path, tar, manifest

    def content(self, name: str) -> bytes:
        """Return a file, checked against the manifest. Raises StorageError S103."""
        return b"".join(self.pieces(name))

    def copy(self, name: str, target: Path) -> None:
        """Write a file, readable by its owner only, flushed; it is removed again if it is not what was listed."""
        with storing(target):
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in self.pieces(name):
                    with storing(target):
                        file.write(piece)
                with storing(target):
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file piece by piece; raises StorageError S103 at its end if it is not the one that was listed."""
        listed, digest, size = self._manifest.files[name], hashlib.sha256(), 0
        source = self._tar.extractfile(name)
        while source is not None and (piece := source.read(_BLOCK)):
            digest.update(piece)
            size += len(piece)
            yield piece
        if (size, digest.hexdigest()) != (listed.size, listed.sha256):
            raise damaged(self._path, f"{name} is not the file that its manifest lists")


def damaged(path: Path, reason: str) -> StorageError:
    """The error for a file that cannot be restored."""
    return StorageError(
        f"the backup is damaged: {reason}",
        code="S103",
        where=str(path),
        fix="take an older backup: fedit-server backup verify FILE",
    )


def _small(tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes:
    member = members[name]
    if member.size > _MOST_SMALL_BYTES:
        raise KeyError(name)
    source = tar.extractfile(member)
    return source.read() if source is not None else b""
