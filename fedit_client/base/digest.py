"""The digest of a model folder on this machine, computed once and noted in our own cache."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

from fedit_client.home.durable import make_private
from fedit_protocol.base_files import base_digest, pinned
from fedit_protocol.errors import ModelError
from fedit_protocol.ids import Digest

_CHUNK_BYTES: Final = 1 << 20


def digest_folder(path: Path, cache: Path | None = None) -> Digest:
    """Return the base digest of a folder's pinned files (`fedit_protocol.base_files`).

    With `cache` the digests of files whose size and time have not changed are taken from a note there. Raises
    ModelError M001 if the folder holds no safetensors model or cannot be read.
    """
    try:
        return base_digest(digest_files(path, cache))
    except ValueError as error:
        raise ModelError(
            f"this folder holds no base model: {error}",
            code="M001",
            where=str(path),
            fix="fedit-client set model=FOLDER, one with config.json and *.safetensors",
        ) from error


def digest_files(path: Path, cache: Path | None = None) -> dict[str, Digest]:
    """Return the digest of each pinned file of a folder, noted as by `digest_folder`; raises ModelError M001."""
    try:
        names = pinned(item.name for item in path.iterdir() if item.is_file())
        note = _Note.of(path, cache)
        digests = {name: note.digest(path / name) for name in names}
    except OSError as error:
        raise ModelError(f"the base model cannot be read: {error.strerror}", code="M001", where=str(path)) from error
    note.save()
    return digests


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, read piece by piece."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


class _Note:
    """What is known of a folder's files: name → [size, time in ns, digest]; kept in our cache, never beside a model."""

    def __init__(self, file: Path | None, known: dict[str, Any]) -> None:
        self._file, self._known, self._changed = file, known, False

    @classmethod
    def of(cls, folder: Path, cache: Path | None) -> "_Note":
        """Return the note on this folder; an unreadable one is an empty one."""
        if cache is None:
            return cls(None, {})
        file = cache / "digests" / (hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32] + ".json")
        try:
            known = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            known = {}
        return cls(file, known)

    def digest(self, path: Path) -> Digest:
        """Return a file's digest, computed if the file is new or has changed."""
        facts = path.stat()
        stamp = [facts.st_size, facts.st_mtime_ns]
        entry = self._known.get(path.name)
        if not entry or entry[:2] != stamp:
            entry = self._known[path.name] = [*stamp, "sha256:" + file_sha256(path)]
            self._changed = True
        return Digest(entry[2])

    def save(self) -> None:
        """Write the note if it says something new, whole or not at all."""
        if self._file is None or not self._changed:
            return
        make_private(self._file.parent)
        part = self._file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(self._known), "utf-8")
        part.replace(self._file)
