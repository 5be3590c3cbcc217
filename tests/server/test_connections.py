"""Thousands of devices that wait must fit into the memory and the file table of one process."""

import asyncio
import asyncio.sslproto
import resource
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedit_server.keys.tls import TlsFiles
from fedit_server.running.connections import MOST_FILES, READ_BYTES, allow_many, spare_memory


async def test_a_connection_keeps_a_small_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server that another test has started in this process has set it already.
    monkeypatch.setattr(asyncio.sslproto.SSLProtocol, "max_size", 256 * 1024)
    tls = TlsFiles(tmp_path)
    tls.create_authority(datetime.now(UTC))
    tls.renew_leaf(["localhost"], datetime.now(UTC))
    trusting = ssl.create_default_context(cadata=tls.authority_pem())
    kept: list[int] = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol: Any = writer.transport
        kept.append(len(protocol._ssl_protocol.get_buffer(-1)))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.server_context()) as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            spare_memory()
    assert kept == [256 * 1024, READ_BYTES]


def test_all_the_files_that_the_system_allows_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        allow_many()
        wanted = MOST_FILES if before[1] == resource.RLIM_INFINITY else min(MOST_FILES, before[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
