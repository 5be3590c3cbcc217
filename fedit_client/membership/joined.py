"""What this device has joined, and on which terms: one JSON file, replaced in one step."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.lock import in_turn
from fedit_client.home.paths import Paths
from fedit_client.membership.trust import Federation, PinnedBy, ServerAddress
from fedit_client.migrations.format import check_home
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import MembershipError, StorageError
from fedit_protocol.task import Quantization, TaskDocument


class Membership(BaseModel):
    """Everything that a later `run` needs; the secret key lies elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    schema_version: Literal[1] = 1
    host: str
    port: int
    pinned_by: PinnedBy
    descriptor: bytes
    certificate: bytes
    log_head: bytes
    label: str
    consent: str
    """`TASK@N`, what the owner agreed to."""
    document: bytes
    """The task document that the owner agreed to, as published."""
    data: tuple[str, ...] = ()
    """Only homes of earlier versions name their rows here; `remembered.py` reads them."""
    on_error: Literal["stop", "skip"] = "stop"
    model: str | None = None
    """Where the base lies, if not where the task says."""
    device: Literal["auto", "cpu", "cuda", "rocm", "xpu", "mps"] = "auto"
    threads: int | None = None
    trains_on: str | None = None
    """The kind of device that the owner has seen when joining; None in a home from before that was noted."""
    base_class: Quantization | None = None
    """The base class that the owner has seen when joining; None where the task has one only, or before there were."""
    joined_at: int

    @property
    def federation(self) -> Federation:
        """The trusted descriptor."""
        return Federation(decode(FederationDescriptor, self.descriptor), self.descriptor, self.pinned_by)

    def address(self, no_proxy: str = "") -> ServerAddress:
        """Where the server is; `no_proxy` as the owner's settings have it."""
        return ServerAddress(self.host, self.port, pinned_by=self.pinned_by, no_proxy=no_proxy)

    @property
    def task_document(self) -> TaskDocument:
        """The task as agreed to."""
        return decode(TaskDocument, self.document)

    def save(self, path: Path) -> None:
        """Write the file; a crash leaves the old or the new one."""
        write_atomic(path, self.model_dump_json(indent=2).encode() + b"\n")


def load_membership(path: Path) -> Membership | None:
    """Return what was joined, or None; raises StorageError S013 for a file that is not ours, S016 for a newer home."""
    check_home(path.parent)
    with translating(path):
        if not path.exists():
            return None
        raw = path.read_bytes()
    try:
        return Membership.model_validate_json(raw)
    except ValidationError as error:
        raise StorageError("the membership file cannot be read", code="S013", where=str(path),
                           fix="fedit-client leave --erase, then join with a new invite") from error  # fmt: skip


def require_membership(path: Path) -> Membership:
    """Return what was joined; raises MembershipError J001 if nothing was."""
    found = load_membership(path)
    if found is None:
        raise MembershipError("this device has not joined a federation", code="J001",
                              fix="fedit-client join --server 'fedit://…' --data rows.jsonl")  # fmt: skip
    return found


def joined_or_left(paths: Paths) -> Membership:
    """Return what was joined, else what was left last, for its adapters are still here; raises MembershipError J001.

    A membership that was left names the task and the owner's wishes, and has no certificate.
    """
    joined = load_membership(paths.membership_file)
    left = None if joined else load_membership(paths.left_file)
    return joined or left or require_membership(paths.membership_file)


def keep_left(paths: Paths, membership: Membership) -> None:
    """Remember what is left, if adapters of it are here."""
    if (paths.adapters / membership.task_document.task.id).is_dir():
        membership.model_copy(update={"certificate": b"", "label": ""}).save(paths.left_file)


def lock_of(path: Path) -> Path:
    """Return the file that is locked while the membership file is rewritten."""
    return path.with_suffix(".lock")


def rewriting(path: Path) -> AbstractContextManager[None]:
    """Hold the file while it is read and replaced: a yes and a renewal may come from two processes at once."""
    return in_turn(lock_of(path))


def keep_in_membership(path: Path, **changed: bytes) -> None:
    """Replace fields of what was joined and leave the others as they are now; raises as `require_membership`."""
    with rewriting(path):
        require_membership(path).model_copy(update=changed).save(path)
