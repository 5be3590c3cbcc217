"""Devices and evaluators: of each its key, its label, its kind, and when it was seen in coarse words."""

from pydantic import Field

from fedit_server.admin.models.common import MOST_LISTED, Query, Reply


class FarOff(Reply):
    """In how many of its rounds a device's cohort was far from the others."""

    task: str
    streak: int
    flagged: int
    rounds: int
    alone: bool
    named: bool


class ClientInfo(Reply):
    """One device."""

    id: str
    label: str
    device_kind: str
    client_version: str = Field(description="Of its program, as its newest check-in said.")
    state: str = Field(description="active, left, revoked or blocked")
    last_seen: str = Field(description="recently, today, this week or longer ago")
    far_off: tuple[FarOff, ...]


class ClientPage(Reply):
    """Devices by id."""

    clients: tuple[ClientInfo, ...]
    next: str | None = Field(description="Pass it as `after` for the next part; null at the end.")


class ClientQuery(Query):
    """Which part of the list of devices."""

    after: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="`next` of the answer before.")
    limit: int = Field(50, ge=1, le=MOST_LISTED, description="How many at most.")


class ClientChanged(Reply):
    """What a device is now."""

    id: str
    state: str
    logged: bool = Field(description="Whether the log that every device checks says so; else this server alone acts.")


class WaitingClient(Reply):
    """A device that asks to be let in."""

    code: str = Field(description="What its owner reads out.")
    id: str
    label: str
    invite: str
    asked: str = Field(description="In coarse words.")


class WaitingList(Reply):
    """Who waits for the operator's yes, longest first."""

    waiting: tuple[WaitingClient, ...]


class Answered(Reply):
    """What the operator has decided about a waiting device."""

    code: str
    id: str
    approved: bool


class EvaluatorList(Reply):
    """The devices whose reported losses count."""

    evaluators: tuple[ClientInfo, ...]


class EvaluatorChanged(Reply):
    """Who was appointed or dismissed."""

    id: str
