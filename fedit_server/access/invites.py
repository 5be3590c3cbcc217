"""Invite codes: drawn here, kept as scrypt hashes, shown once inside a link."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from typing import Any, Final

from fedit_protocol.enrollment import CODE_LENGTH, InviteLink, new_code
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest, TaskId
from fedit_server.storage.members import Members
from fedit_server.storage.rows import InviteRow

# RFC 7914 with N = 2^14, r = 8, p = 1: 16 MiB and some 30 ms. Codes have 80 random bits, so a salt of the federation
# serves all of them, and a code is found by its hash without trying every invite.
_COST: Final = 2**14
_BLOCK: Final = 8


@dataclass(frozen=True)
class NewInvite:
    """An invite whose code is still known."""

    row: InviteRow
    link: InviteLink


@dataclass(frozen=True)
class Terms:
    """What an invite allows."""

    uses: int
    lifetime_s: int
    tasks: tuple[TaskId, ...] = ()
    """The tasks that devices are invited to; none means every task."""
    approve: bool = False
    """Whether each device waits until the operator lets it in."""


async def hash_code(code: str, salt: bytes) -> bytes:
    """Return the hash that an invite is stored under; takes the same time for every code."""
    return await asyncio.to_thread(hashlib.scrypt, code.encode(), salt=salt, n=_COST, r=_BLOCK, p=1, dklen=32)


async def list_invites(members: Members, now_s: int) -> list[dict[str, Any]]:
    """Return every invite without its code, which nobody knows any more."""
    return [
        {
            "id": row.invite_id,
            "state": row.state(now_s),
            "uses": row.uses,
            "max_uses": row.max_uses,
            "expires_at": row.expires_at,
            "tasks": row.tasks,
        }
        for row in await members.invites()
    ]


async def revoke_invite(members: Members, invite_id: str, now_s: int) -> None:
    """Make an invite useless; raises ConfigError U025 if there is none."""
    if not await members.revoke_invite(invite_id, now_s):
        raise ConfigError(f"there is no invite {invite_id}", code="U025", fix="look at the list of invites")


async def create_invite(
    members: Members, salt: bytes, address: tuple[str, int], pin: Digest, terms: Terms, now_s: int
) -> NewInvite:
    """Make an invite to the server at `address`; the code exists in the returned link and nowhere else."""
    code = new_code(os.urandom(CODE_LENGTH))
    ends = now_s + terms.lifetime_s
    hashed = await hash_code(code, salt)
    row = await members.add_invite(hashed, terms.uses, ends, now_s, terms.tasks, needs_approval=terms.approve)
    host, port = address
    return NewInvite(row, InviteLink(host=host, port=port, code=code, pin=pin))
