"""Invites."""

from typing import Annotated, Final

from pydantic import Field

from fedit_server.admin.models.common import WHOLE, Body, Reply, Seconds

_DAY_S: Final = 86400
MOST_USES: Final = 100_000


class InviteInfo(Reply):
    """An invite without its code, which nobody knows any more."""

    id: str
    state: str = Field(description="active, used, expired or revoked")
    uses: int
    max_uses: int
    expires_at: Seconds
    tasks: tuple[str, ...] = Field(description="The tasks that it is for; none means every task.")


class InviteList(Reply):
    """Every invite."""

    invites: tuple[InviteInfo, ...]


class NewInviteTerms(Body):
    """What a new invite allows; what is left out is as the settings say."""

    uses: Annotated[int, Field(ge=1, le=MOST_USES), WHOLE] | None = Field(
        None, description="Devices that may join with it."
    )
    lifetime_s: Annotated[int, Field(ge=60, le=3650 * _DAY_S), WHOLE] | None = Field(
        None, description="Seconds until it ends."
    )
    tasks: list[str] = Field(default_factory=list, max_length=64, description="Ids of tasks; none means every task.")
    approve: bool = Field(False, description="Each device waits until the operator lets it in.")


class MadeInvite(Reply):
    """A new invite; nobody can show the link again."""

    id: str
    link: str
    uses: int
    expires_at: Seconds
    tasks: tuple[str, ...]


class InviteRevoked(Reply):
    """The invite that is useless now; devices that used it stay."""

    id: str
