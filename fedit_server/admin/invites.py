"""Invites: making, listing, revoking; where the enrolment authority lives apart, all of that happens there."""

from fedit_protocol.catalogue import TaskState
from fedit_server.access.invites import Terms, create_invite, list_invites, revoke_invite
from fedit_server.admin.models.invites import InviteInfo, InviteList, InviteRevoked, MadeInvite, NewInviteTerms
from fedit_server.admin.operations import Admin
from fedit_server.problems import QuotaError
from fedit_server.tasks.lifecycle import refuse_archived


async def make_invite(admin: Admin, wanted: NewInviteTerms) -> MadeInvite:
    """Make an invite to the address that the server has, or last had.

    Raises ConfigError U025, U031, U120, QuotaError U115.
    """
    admin.need_authority()
    config, members = admin.config, admin.store.members
    active = sum(row.state(admin.now_s) == "active" for row in await members.invites())
    if active >= config.most_invites:
        raise QuotaError(
            f"there are {active} active invites, as many as the settings allow",
            fix="revoke one: fedit-server invite list, fedit-server invite revoke ID; or raise most_invites",
        )
    lifetime_s = round(config.invite_days * 86400) if wanted.lifetime_s is None else wanted.lifetime_s
    tasks = [await admin.task(name) for name in dict.fromkeys(wanted.tasks)]
    for task in tasks:
        if task.state is TaskState.ARCHIVED:
            refuse_archived(task.task_id)
    ids = tuple(task.task_id for task in tasks)
    terms = Terms(wanted.uses or config.invite_uses, lifetime_s, ids, wanted.approve)
    salt = await members.federation_salt(admin.identity.descriptor.federation_id, admin.now_s)
    async with admin.change("invite.create", "") as change:
        made = await create_invite(members, salt, admin.address(), admin.identity.pin, terms, admin.now_s)
        change.after = made.row.__dict__
    row = made.row
    return MadeInvite(
        id=row.invite_id, link=str(made.link), uses=row.max_uses, expires_at=row.expires_at, tasks=row.tasks
    )


async def show_invites(admin: Admin) -> InviteList:
    """Return every invite without its code, which nobody knows any more; raises ConfigError U031."""
    admin.need_authority()
    listed = await list_invites(admin.store.members, admin.now_s)
    return InviteList(invites=tuple(InviteInfo(**row) for row in listed))


async def end_invite(admin: Admin, invite_id: str) -> InviteRevoked:
    """Make an invite useless; raises ConfigError U025, U031."""
    admin.need_authority()
    async with admin.change("invite.revoke", invite_id):
        await revoke_invite(admin.store.members, invite_id, admin.now_s)
    return InviteRevoked(id=invite_id)
