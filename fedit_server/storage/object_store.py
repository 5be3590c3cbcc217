"""Blobs in an S3-compatible store, through obstore: large ones in parts, everything retried, errors told in words.

Only this file and `object_copies.py` know that library. Credentials come from the AWS_* environment, as the library
reads it, or from a file in the form of AWS tools; they are handed on and never printed.
"""

import configparser
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.ids import Digest
from fedit_server.storage import READ_BYTES, StoredBlob, blob_name, unknown_blob
from fedit_server.storage.disk import damaged

if TYPE_CHECKING:
    from obstore.store import S3Store

BLOBS: Final = "blobs/"
_REFUSED: Final = re.compile(r"status code: 40[13]|AccessDenied")
"""How a refused listing shows: the library has no error of its own for it."""

_HOW: Final = "OPERATING.md, section «An S3-compatible store»"
_FROM_FILE: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
_RETRIES: Final = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
_TIMEOUTS: Final = {"connect_timeout": "5s", "timeout": "60s"}


def open_bucket(url: str, credentials: Path | None = None) -> "S3Store":
    """Return the store behind `s3://bucket/prefix`; nothing is asked of it yet.

    Raises ConfigError C100 without the extra, C101 for a URL or a credentials file that cannot be used.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        raise ConfigError(
            "blobs in an S3-compatible store need the extra s3",
            code="C100",
            where="blobs",
            fix='pip install "fedit[s3]"',
        ) from error
    given: dict[str, Any] = {} if credentials is None else _read_credentials(credentials)
    plain = str(given.get("endpoint", "")).startswith("http://")
    try:
        options = _TIMEOUTS | ({"allow_http": True} if plain else {})
        return S3Store.from_url(url, config=given, client_options=options, retry_config=_RETRIES)  # type: ignore[arg-type,call-overload,no-any-return,unused-ignore] # the library's stubs know fixed keys only
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"blobs: {url} cannot be used",
            code="C101",
            where="blobs",
            fix="write it as s3://BUCKET or s3://BUCKET/PREFIX",
        ) from error


class ObjectBlobs:
    """A BlobStore in a bucket, below the prefix of its store."""

    def __init__(self, store: "S3Store", url: str) -> None:
        self._store, self._url = store, url

    async def put(self, content: bytes) -> Digest:
        """Store and return the digest; a blob above some MB travels in parts that are retried by themselves."""
        digest = digest_of(content)
        with translating(self._url):
            await self._store.put_async(_key(digest), content)
        return digest

    async def get(self, digest: Digest) -> bytes:
        """Return the bytes; raises ProtocolError (unknown-blob), StorageError S006 if they were changed."""
        with translating(self._url):
            answer = await self._store.get_async(_key(digest))
            content = bytes(await answer.bytes_async())
        if digest_of(content) != digest:
            raise damaged(f"{self._url}/{_key(digest)}")
        return content

    async def size(self, digest: Digest) -> int:
        """Return how many bytes a blob has; raises ProtocolError (unknown-blob)."""
        with translating(self._url):
            return int((await self._store.head_async(_key(digest)))["size"])

    async def read(self, digest: Digest, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield a range of the bytes; raises ProtocolError (unknown-blob)."""
        if start >= stop:
            return
        with translating(self._url):
            answer = await self._store.get_async(_key(digest), options={"range": (start, stop)})
            async for piece in answer.stream(min_chunk_size=READ_BYTES):
                yield bytes(piece)

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """Yield every blob below the prefix."""
        with translating(self._url):
            async for batch in self._store.list_async(BLOBS):
                for found in batch:
                    name = found["path"].removeprefix(BLOBS).replace("/", "")
                    yield StoredBlob(Digest(f"sha256:{name}"), found["size"], found["last_modified"].timestamp())

    async def remove(self, digest: Digest) -> None:
        """Remove a blob; S3 answers the same whether or not it was there."""
        with translating(self._url):
            await self._store.delete_async(_key(digest))

    async def check(self) -> None:
        """Return if the bucket is there and lets itself be listed."""
        with translating(self._url):
            async for _ in self._store.list_async(BLOBS, chunk_size=1):
                break


@contextmanager
def translating(url: str) -> Iterator[None]:
    """Turn the library's errors into ours: S101 no such bucket, S102 access refused, S100 anything else."""
    from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (BaseError, OSError) as error:  # it raises FileNotFoundError, PermissionError and TimeoutError too
        said = str(error)
        if "NoSuchBucket" in said:
            message, code, fix = "there is no such bucket", "S101", "create it, or correct the setting blobs"
        elif isinstance(error, NotFoundError | FileNotFoundError):
            raise unknown_blob() from error
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError) or _REFUSED.search(said):
            message, code = "the object store refuses access", "S102"
            fix = f"give these credentials the rights to list, read, write and delete there: {_HOW}"
        else:
            message, code = "the object store does not answer, or fails", "S100"
            fix = f"look whether it runs and is reached from here; the server tries again by itself: {_HOW}"
        # The library's own words are not repeated: they may hold the request with its signature.
        raise StorageError(message, code=code, where=url, fix=fix) from error


def _key(digest: Digest) -> str:
    return BLOBS + "/".join(blob_name(digest))


def _read_credentials(path: Path) -> dict[str, str]:
    """Read the section [default] of an AWS credentials file, or its only one."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text("utf-8"))
        names = parser.sections()
        section = parser["default" if "default" in names or len(names) != 1 else names[0]]
        given = {ours: section[theirs] for theirs, ours in _FROM_FILE.items() if theirs in section}
        if not {"access_key_id", "secret_access_key"} <= given.keys():
            raise KeyError("access keys")
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        raise ConfigError(
            "the credentials file of the object store cannot be used",
            code="C101",
            where=str(path),
            fix="it has a section [default] with aws_access_key_id, aws_secret_access_key, region and endpoint_url",
        ) from error
    return given
