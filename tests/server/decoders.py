"""Everything that reads bytes of strangers: what it is, bytes that it takes, and the errors that may leave it."""

import contextlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_protocol.authority import read_card
from fedit_protocol.change import apply_change, encode_change
from fedit_protocol.encoding import Message, decode, from_base64url
from fedit_protocol.enrollment import InviteLink
from fedit_protocol.errors import FeditError
from fedit_protocol.ids import FederationId
from fedit_protocol.requests import check_authorization
from fedit_protocol.secagg.shares import unpack_shares
from fedit_protocol.signing import Envelope, Kind, read_envelope
from fedit_protocol.task_record import read_line
from fedit_protocol.tensor_files import LENGTH_BYTES, header_length, read_header
from fedit_server.access.proxies import networks, real_address
from fedit_server.backup.archive import reading
from fedit_server.dashboard.door import fields_of
from fedit_server.routes.admin import ENDPOINTS
from fedit_server.routes.admin.endpoint import body_of
from fedit_server.tasks.files import load_task
from fedit_server.tasks.retention import load_retention


@dataclass(frozen=True)
class Decoder:
    """One reader of bytes."""

    read: Callable[[bytes], object]
    seed: bytes
    """Something like what it takes, for a fuzzer to begin with."""
    errors: tuple[type[Exception], ...] = (FeditError,)

    def survives(self, content: bytes) -> None:
        """Let it read; anything that leaves but its own errors is a finding."""
        with contextlib.suppress(*self.errors):
            self.read(content)


def messages() -> tuple[type[Message], ...]:
    """Return every message of the protocol."""
    found: set[type[Message]] = set()
    kinds: list[type[Message]] = [Message]
    while kinds:
        below = kinds.pop().__subclasses__()
        kinds.extend(below)
        found.update(kind for kind in below if kind.__module__.startswith("fedit_protocol."))
    return tuple(sorted(found, key=lambda kind: kind.__name__))


def _all_messages(content: bytes) -> None:
    for kind in messages():
        with contextlib.suppress(FeditError):
            decode(kind, content)


def _envelope(content: bytes) -> None:
    for kind in Kind:
        with contextlib.suppress(FeditError):
            read_envelope(content, kind)


def _upload_header(content: bytes) -> Envelope:
    return decode(Envelope, from_base64url(_text(content)))


def _bodies(content: bytes) -> None:
    for endpoint in ENDPOINTS:
        with contextlib.suppress(FeditError):
            body_of(endpoint, content)


def _tensors(content: bytes) -> object:
    length = header_length(content[:LENGTH_BYTES], len(content))
    start = LENGTH_BYTES + length
    return read_header(content[LENGTH_BYTES:start], len(content) - start)


def _in_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def reads(content: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            path.write_bytes(content)
            return read(path)

    return reads


def _task(path: Path) -> None:
    load_task(path)
    load_retention(path)


def _backup(path: Path) -> None:
    with reading(path) as (manifest, _, _, contents):
        for name in manifest.files:
            contents.content(name)


def _authorization(content: bytes) -> object:
    return check_authorization(_text(content), FederationId("0" * 32), "GET", "/v1/tasks", 0)


def _forwarded(content: bytes) -> object:
    return real_address("127.0.0.1", _text(content).split("\n"), networks(("127.0.0.0/8", "10.0.0.0/8")))


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _tar() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:") as tar:
        for name, content in (("manifest.json", b'{"files": {}}'), ("keys.sealed", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def _safetensors() -> bytes:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return len(header).to_bytes(LENGTH_BYTES, "little") + header + bytes(8)


_TASK: Final = b"""schema = 'fedit-task/1'
id = 'notes'
title = 'Notes'
[base]
model = 'org/name'
[adapter]
rank = 4
[retention]
adapters = 3
"""

DECODERS: Final = {
    "messages": Decoder(_all_messages, b"\xa1jcomplaints\x83\x00\x17\x18\x18"),
    "envelopes": Decoder(_envelope, b"\xa4dkindaxcctxdbodyA0csigX@" + bytes(64)),
    "upload headers": Decoder(_upload_header, b"oWpjb21wbGFpbnRz"),
    "shares": Decoder(unpack_shares, bytes(70)),
    "changes": Decoder(lambda found: apply_change(_safetensors(), found, 4096),
                       encode_change(_safetensors(), _safetensors())),
    "lines of a task's record": Decoder(read_line, b"\xa1jcomplaints\x83\x00\x17\x18\x18"),
    "tensor files": Decoder(_tensors, _safetensors(), (ValueError,)),
    "tasks": Decoder(_in_file(_task), _TASK),
    "invite links": Decoder(lambda found: InviteLink.parse(_text(found)),
                            b"fedit://host:8443/j/K7QF-2M9D-XT4B-W8HC#sha256:" + b"9" * 64),
    "authority cards": Decoder(lambda found: read_card(_text(found)), b"fedit-authority"),
    "authorizations": Decoder(_authorization, b"FedIT " + b"A" * 43 + b".1700000000." + b"A" * 86),
    "forwarded addresses": Decoder(_forwarded, b'10.0.0.1, "[2001:db8::1]:443", 192.0.2.1:80', ()),
    "forms": Decoder(fields_of, b"csrf=x&toml=%5Bbase%5D%0Amodel+%3D+1&do=", (ValueError,)),
    "bodies": Decoder(_bodies, b'{"role": "admin", "lifetime_s": 60, "task": {"id": "a"}}'),
    "backups": Decoder(_in_file(_backup), _tar()),
}  # fmt: skip
