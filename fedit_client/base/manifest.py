"""Which files of a base are not those that a task pins: its manifest is fetched, by the very digest that is pinned."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedit_client.base.digest import digest_files
from fedit_client.base.model import OtherBaseError
from fedit_client.home.durable import translating
from fedit_client.network.transport import Transport
from fedit_protocol.base_files import MOST_MANIFEST_BYTES, read_manifest
from fedit_protocol.errors import ProtocolError, SecurityError, TransportError
from fedit_protocol.ids import Digest


async def told_apart(error: OtherBaseError, expected: Digest, transport: Transport, cache: Path) -> OtherBaseError:
    """Return the error with the names of the files that differ; as it was where no manifest is to be had.

    Servers that published the task before there were manifests have none. Raises SecurityError T012 for other bytes.
    """
    try:
        manifest = await fetch_manifest(expected, transport, cache)
    except SecurityError:
        raise
    except (ProtocolError, TransportError):
        return error
    here = await asyncio.to_thread(digest_files, error.folder, cache)
    return OtherBaseError(error.model, error.folder, "; ".join(_differences(here, manifest)))


async def fetch_manifest(digest: Digest, transport: Transport, cache: Path) -> dict[str, Digest]:
    """Return the files that a base model of this digest has, each with its digest; kept in `cache`, where it is small.

    Raises SecurityError T012, ProtocolError (unknown-blob, malformed), TransportError, StorageError.
    """
    file = cache / "bases" / f"{digest.removeprefix('sha256:')}.manifest"
    if not file.is_file():
        await transport.download(digest, file, MOST_MANIFEST_BYTES, lambda *_: None)
    with translating(file):
        return read_manifest(await asyncio.to_thread(file.read_bytes))


def _differences(here: Mapping[str, Digest], wanted: Mapping[str, Digest]) -> Iterator[str]:
    for name in sorted(here.keys() | wanted.keys()):
        if name not in here:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is not one of its files"
        elif here[name] != wanted[name]:
            yield f"{name} has another content"
