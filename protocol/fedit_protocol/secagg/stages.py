"""The stages of a round, as the server and as one client see them."""

from enum import StrEnum


class Stage(StrEnum):
    """Where a round stands on the server; accept, sealed_update and open belong to trusted rounds."""

    ADVERTISE_KEYS = "advertise_keys"
    SHARE_KEYS = "share_keys"
    ACKNOWLEDGE = "acknowledge"
    MASKED_UPDATE = "masked_update"
    CONFIRM = "confirm"
    UNMASK = "unmask"
    SUM = "sum"
    SECOND_INPUT = "second_input"
    ACCEPT = "accept"
    SEALED_UPDATE = "sealed_update"
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class ClientStage(StrEnum):
    """Where one participant stands: named by what it has done last."""

    OFFERED = "offered"
    JOINED = "joined"
    SHARED = "shared"
    ACKNOWLEDGED = "acknowledged"
    READY = "ready"
    FROZEN = "frozen"
    UPLOADED = "uploaded"
    CONFIRMED = "confirmed"
    ANSWERED = "answered"
    WIPED = "wiped"
