"""Real trouble for `test_bad_input.py`: servers that misbehave, disks that are full, terminals that go."""

import asyncio
import fcntl
import os
import pty
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.main import get_command

from .test_cli_join import Joining, attended

ROW = '{"prompt":"a","completion":"b"}\n'
COMMAND = re.compile(r"fedit-(?:client|server)(?: [^\s,;()`]+)+")
VALUED = {"--home", "--config", "--color"}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    err: str


class Scene:
    """A fresh home beside a server that a device can join; `act` functions break something and run a command."""

    def __init__(self, joining: Joining, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.joining, self.https, self.home = joining, joining.https, joining.home
        self.folder, self.monkeypatch = folder, monkeypatch

    def rows(self, text: str | bytes, name: str = "bad.jsonl") -> str:
        """Write a file and return its name."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    async def run(self, *words: str) -> Ended:
        """Run a command in this process."""
        from fedit_client.cli import invoke

        status = await asyncio.to_thread(invoke, list(words))
        return Ended(status, self.joining.capsys.readouterr().err)

    async def join(self, *words: str) -> Ended:
        """Join the server of this scene, as far as that goes."""
        done = await self.joining.run("--no-run", "--accept", "test-task@1", *words)
        return Ended(done.status, done.err)

    async def joined(self) -> None:
        """Be a member."""
        ended = await self.join()
        assert ended.status == 0, ended.err

    async def process(self, *words: str, program: str = "", limit: Callable[[], None] = lambda: None) -> Ended:
        """Run a command as a process of its own."""
        start = ["-c", program] if program else ["-m", "fedit_client"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *start, *words, env=environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=limit,
        )  # fmt: skip
        _, err = await process.communicate()
        return Ended(process.returncode or 0, err.decode())


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def on_terminal(words: list[str], until: bytes, then: Callable[[int, "subprocess.Popen[bytes]"], int]) -> Ended:
    """Run a command on a pseudo terminal; once it has said `until`, do something to it, which returns the terminal."""
    person, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fedit_client", *words], env=environment(), stdin=terminal, stdout=terminal,
        stderr=subprocess.PIPE, preexec_fn=_led,  # noqa: PLW1509 - a thread only waits here
    ) as process:  # fmt: skip
        os.close(terminal)
        said = b""
        while until not in said:
            said += os.read(person, 1024)
        left = then(person, process)
        assert process.stderr is not None
        err = process.stderr.read().decode()
        status = process.wait(timeout=30)
    if left >= 0:
        os.close(left)
    return Ended(status, err)


def _led() -> None:
    """Lead a session whose terminal this is, so that the kernel tells when it hangs up."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    attended()


def hung_up(person: int, _: "subprocess.Popen[bytes]") -> int:
    os.close(person)
    return -1


def control_c(person: int, process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGINT)
    return person


def control_d(person: int, _: "subprocess.Popen[bytes]") -> int:
    os.write(person, b"\x04")
    return person


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: bool = True
) -> AsyncIterator[int]:
    """A server on loopback that does what it is told; yield its port."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA(organization_name="Corp Inspection CA").issue_cert("127.0.0.1").configure_cert(context)

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):  # the client may have had enough
                await serve(reader, writer)
        finally:
            writer.close()  # also where the answer broke off: a transport left open warns when it is collected

    server = await asyncio.start_server(quietly, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def says_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak another protocol."""
    writer.write(b"220 mail.example.org ESMTP\r\n")
    await writer.drain()
    await reader.read(1024)
    writer.close()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request, and close."""
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


def answering(status: str, body: bytes, kind: str = "text/html") -> Any:
    """A server that gives one answer to everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    return serve


def relaying(port: int) -> Any:
    """Something on the way that opens the connection, and passes on what it reads."""
    onward = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    onward.check_hostname, onward.verify_mode = False, ssl.CERT_NONE

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", port, ssl=onward)
        await asyncio.gather(passed(reader, here), passed(there, writer), return_exceptions=True)

    return serve


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of its own that is full; only root may mount one."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with suppress(OSError):
            (place / "filler").write_bytes(b"x" * 2**20)
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def commands_in(text: str) -> list[str]:
    """The command lines of ours that a text names."""
    return COMMAND.findall(re.sub(r"[.:] |[.:]$", ";", text))


@cache
def programs() -> dict[str, Any]:
    """The command trees of both programs."""
    from fedit_client.cli import app as client
    from fedit_server.cli import app as server

    return {"fedit-client": get_command(client), "fedit-server": get_command(server)}


def missing_in(line: str) -> str:
    """Say what of a command line does not exist, or nothing."""
    words = _split(line)
    command: Any = programs()[words[0]]
    everywhere = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    words = words[1:]
    while words:
        word = words.pop(0)
        if hasattr(command, "default") and word not in command.commands:
            command = command.commands[command.default]
        if word == "…":  # whatever the person had typed
            return ""
        if word.startswith("-"):
            if word.partition("=")[0] not in everywhere | {opt for one in command.params for opt in one.opts}:
                return f"{word} is no option of {command.name}"
            if word in VALUED and words:
                words.pop(0)
        elif (known := getattr(command, "commands", None)) is not None:
            if word not in known:
                return f"{word} is no command"
            command = known[word]
    return ""


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
