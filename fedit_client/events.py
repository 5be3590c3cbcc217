"""What a running client tells its owner: a kind for programs, a sentence for people, and how far along it is."""

from dataclasses import dataclass
from enum import StrEnum

from fedit_client.hardware.plan import DeviceUse


class EventKind(StrEnum):
    """What happened. New kinds may be added within a version; treat an unknown one as NOTICE."""

    WAITING = "waiting"
    ROUND_OPENED = "round-opened"
    STAGE = "stage"
    PROGRESS = "progress"
    ROUND_COMMITTED = "round-committed"
    ROUND_LOST = "round-lost"
    CONNECTION_LOST = "connection-lost"
    CONNECTED = "connected"
    ADAPTER_SAVED = "adapter-saved"
    TASK_FINISHED = "task-finished"
    PAUSED = "paused"
    RESUMED = "resumed"
    NOTICE = "notice"


class RoundStage(StrEnum):
    """The stages that a person sees, in their order (EXPERIENCE, section 2); seal only in trusted rounds."""

    WAIT = "wait"
    DOWNLOAD = "download"
    PREPARE = "prepare"
    TRAIN = "train"
    MASK = "mask"
    SEAL = "seal"
    UPLOAD = "upload"
    UNMASK = "unmask"
    DONE = "done"


@dataclass(frozen=True)
class Event:
    """One thing that happened; `progress` is 0 to 1 within `stage`, None where there is nothing to measure.

    `stage_eta_s` and `eta_s` are the seconds until the stage and this device's part of the round are done, from this
    machine's own history; None before there is one.
    """

    kind: EventKind
    text: str
    progress: float | None = None
    stage: RoundStage | None = None
    round_no: int | None = None
    loss: float | None = None
    adapter_version: int | None = None
    tokens_per_second: float | None = None
    stage_eta_s: float | None = None
    eta_s: float | None = None
    use: DeviceUse | None = None
    """What the training takes of its device, where that was looked at."""
