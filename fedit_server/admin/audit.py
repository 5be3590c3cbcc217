"""The audit log for those who read it, and the check that nothing in it was changed or cut out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedit_protocol.encoding import decode, digest_of, from_base64url, to_base64url
from fedit_protocol.enrollment import FederationDescriptor, federation_context
from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import Digest
from fedit_protocol.signing import Kind, read_envelope, unseal
from fedit_protocol.succession import Succession, Successions, check_successor
from fedit_server.admin.models.audit import AuditLineInfo, AuditPage, AuditSigners
from fedit_server.admin.models.common import Page
from fedit_server.admin.operations import Admin
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, Identity
from fedit_server.storage.audit import NOTHING, AuditHead, AuditLine, broken, check_chain
from fedit_server.storage.place import place_of
from fedit_server.storage.store import Store


@dataclass(frozen=True)
class Checked:
    """A log that holds together: how long it is, the digest of its newest entry, and the pin of who signed it."""

    size: int
    digest: str
    pin: str


async def list_audit(admin: Admin, page: Page) -> AuditPage:
    """Return lines in order."""
    start = page.after or 0
    lines = await admin.store.audit.lines(start, page.limit)
    size = await admin.store.audit.size()
    after = start + len(lines)
    return AuditPage(lines=tuple(map(_info, lines)), next=after if after < size and lines else None, size=size)


async def signers(admin: Admin) -> AuditSigners:
    """Return what the log's signatures are checked with: the descriptor, and how earlier ones vouch for it."""
    return AuditSigners(
        pin=admin.identity.pin,
        descriptor=to_base64url(admin.identity.descriptor_bytes),
        successions=tuple(map(to_base64url, admin.identity.successions.steps)),
    )


async def note_rotation(config: ServerConfig, identity: Identity) -> None:
    """Write a change of the server's key down: the log's newest entry is then signed by the key that verifiers know."""
    home = Home(config.home)
    async with (
        await Store.open(place_of(config, home.database), migrate=True) as store,
        Admin(home, config, identity, store).change("keys.rotate", identity.pin),
    ):
        pass  # the key itself lies in a file, and has been changed


def check_log(named: AuditSigners, rows: Sequence[AuditLineInfo]) -> Checked:
    """Check every link of a whole log and the signature of its newest head; raises StorageError S110.

    `named.pin` is what a reader compares with the pin of an invite: everything else follows from it.
    """
    descriptor = from_base64url(named.descriptor)
    if digest_of(descriptor) != named.pin:
        raise broken("it names another federation than its pin")
    lines = [AuditLine(from_base64url(r.entry), bytes.fromhex(r.digest), from_base64url(r.head)) for r in rows]
    newest = check_chain(lines, 0, NOTHING)
    if any(_info(line) != row for line, row in zip(lines, rows, strict=True)):
        raise broken("what it shows is not what its entries say")
    if lines:
        _check_head(named, lines[-1].head, AuditHead(size=len(lines), digest=newest))
    return Checked(len(lines), newest.hex(), named.pin)


def check_grown(old: Sequence[AuditLineInfo], new: Sequence[AuditLineInfo]) -> None:
    """Raise StorageError S110 unless `new` begins with all of `old`: a log cut at its end still holds together."""
    if [row.digest for row in old] != [row.digest for row in new[: len(old)]]:
        raise broken(f"it does not continue the {len(old)} entries of the earlier export")


def _check_head(named: AuditSigners, envelope: bytes, expected: AuditHead) -> None:
    described = decode(FederationDescriptor, from_base64url(named.descriptor))
    context = federation_context(described.federation_id)
    try:
        signer = read_envelope(envelope, Kind.AUDIT_HEAD).signer
        head = unseal(envelope, Kind.AUDIT_HEAD, context, AuditHead)
    except ProtocolError as error:
        raise broken("the signature of its newest entry does not verify") from error
    if signer not in _keys(named, described) or head != expected:
        raise broken("its newest entry is not signed by this server")


def _keys(named: AuditSigners, described: FederationDescriptor) -> set[bytes]:
    """Return the server's key and those before it: unbroken signatures lead from each to the pinned descriptor."""
    shown = from_base64url(named.descriptor)
    steps = Successions(steps=tuple(map(from_base64url, named.successions)))
    keys = {bytes(described.server_key)}
    for step in steps.steps:
        before = decode(Succession, read_envelope(step, Kind.SUCCESSION).body).previous
        if check_successor(Digest(digest_of(before)), shown, steps) is not None:
            keys.add(decode(FederationDescriptor, before).server_key)
    return keys


def _info(line: AuditLine) -> AuditLineInfo:
    content = line.content
    said: dict[str, Any] = content.model_dump(exclude={"previous"})
    return AuditLineInfo(
        **said,
        entry=to_base64url(line.entry),
        digest=hashlib.sha256(line.entry).hexdigest(),
        head=to_base64url(line.head),
    )
