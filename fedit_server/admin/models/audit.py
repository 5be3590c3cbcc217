"""The audit log."""

from pydantic import Field

from fedit_server.admin.models.common import Listed, Reply, Seconds


class AuditLineInfo(Reply):
    """One change: who, what, when."""

    position: int
    time: Seconds
    who: str
    role: str
    action: str
    subject: str
    request: str
    before: str
    after: str
    entry: str = Field(description="The entry as its digest covers it: canonical CBOR, base64url.")
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    head: str = Field(description="The server's signed head after this entry: an envelope, base64url.")


class AuditPage(Listed):
    """A part of the log, oldest first; `next` is a position."""

    lines: tuple[AuditLineInfo, ...]
    size: int = Field(description="How many there are in all.")


class AuditSigners(Reply):
    """What the log's signatures are checked with."""

    pin: str = Field(description="SHA-256 of the descriptor, as invites carry it.")
    descriptor: str = Field(description="The federation's descriptor, base64url.")
    successions: tuple[str, ...] = Field(description="How earlier descriptors vouch for it, base64url.")
