"""Which role may do what: one table, which the documents print and the tests go through (decision 0044)."""

from enum import StrEnum
from typing import Final


class Right(StrEnum):
    """One thing that a caller of the admin API may do."""

    READ = "read"
    """Tasks, rounds, adapters with their content, evaluations as aggregates, live events."""
    DEVICES = "devices"
    """The list of devices (labels, kinds, coarse times), of evaluators and of invites."""
    OPERATE = "operate"
    """Tasks, rounds and adapters: pause, decide, roll back; invites; approving and blocking devices."""
    GOVERN = "govern"
    """Tokens, webhooks, and excluding devices for good."""
    AUDIT = "audit"
    """The audit log."""
    METRICS = "metrics"
    """`/metrics`, and the details of health."""


class Role(StrEnum):
    """What a token stands for."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    AUDITOR = "auditor"
    METRICS = "metrics"


OWNER: Final = "owner"
"""Another word for admin, taken wherever a role is given."""

RIGHTS: Final[dict[Role, frozenset[Right]]] = {
    Role.ADMIN: frozenset(Right),
    Role.OPERATOR: frozenset({Right.READ, Right.DEVICES, Right.OPERATE, Right.METRICS}),
    Role.VIEWER: frozenset({Right.READ}),
    Role.AUDITOR: frozenset({Right.READ, Right.DEVICES, Right.AUDIT}),
    Role.METRICS: frozenset({Right.METRICS}),
}
"""Role → what it may do."""


def role_of(text: str) -> Role:
    """Return the role that a person names; raises ValueError if there is none such."""
    return Role.ADMIN if text == OWNER else Role(text)


def who_may(right: Right) -> str:
    """Return the roles that have a right, as words for a refusal."""
    *most, last = (role for role in Role if right in RIGHTS[role])
    return f"{', '.join(most)} or {last}" if most else last
