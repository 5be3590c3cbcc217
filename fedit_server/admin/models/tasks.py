"""Tasks, and the overview of everything."""

from typing import Annotated, Any

from pydantic import Field

from fedit_server.admin.models.common import PLAIN, WHOLE, Body, DigestHex, Reply, Seconds
from fedit_server.admin.models.rounds import Report


class OpenRound(Reply):
    """Where the open round of a task stands."""

    no: int
    stage: str
    progress: dict[str, int]
    deadline: float | None


class HeldRound(Reply):
    """The round of a task whose step waits for a decision."""

    no: int
    reason: str
    adapter_version: int
    digest: DigestHex
    held_at: Seconds
    reports_until: Seconds | None
    alarm: str
    decision: str


class TaskStatus(Reply):
    """A task and how far it is."""

    id: str
    title: str
    version: int
    mode: str
    state: str
    reason: str
    round: OpenRound | None
    held: HeldRound | None
    devices_needed: int
    rounds: int
    committed: int
    failed: int
    adapter_version: int
    owner: str = Field(description="Who answers for it here.")
    base: str = Field(description="The base model, as the task names it.")
    suspects: tuple[str, ...] = Field(description="Devices whose cohorts keep being far from the others.")
    last_report: Report | None


class TaskStatusList(Reply):
    """Every task."""

    tasks: tuple[TaskStatus, ...]


class TaskDetail(Reply):
    """A published task with everything that was left to defaults."""

    state: str
    reason: str
    owner: str
    digest: DigestHex
    adapter_parameters: int
    task: dict[str, Any] = Field(description="The task file's content; `fedit-server task schema` describes it.")


class TaskChanged(Reply):
    """What a task is doing now."""

    task: str
    state: str


class TaskChangeLine(Reply):
    """A line of a task's record; the server's signature over it was checked."""

    task_id: str
    number: int
    at: Seconds
    kind: str
    state: str
    version: int
    by: str
    reason: str
    document: DigestHex
    previous: str
    digest: DigestHex


class TaskRecordReply(Reply):
    """The whole record of a task, oldest line first."""

    changes: tuple[TaskChangeLine, ...]


class RetentionRules(Body):
    """What a task keeps; digests, results and figures of every version and round stay whatever is said here."""

    keep_last: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        None, description="How many of the newest versions keep their content; null: all."
    )
    keep_every: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] = Field(
        0, description="Also every so-many-th version, from 0 on; 0: none."
    )
    rounds_days: Annotated[int, Field(ge=1, le=36_500), WHOLE] | None = Field(
        None, description="After so many days it is forgotten who was invited to a round; null: never."
    )


class RetentionInfo(Reply):
    """What a task keeps."""

    task: str
    keep_last: int | None
    keep_every: int
    rounds_days: int | None


class NewTask(Body):
    """A task to publish, or to keep as a draft."""

    task: dict[str, Any] = Field(description="What a task file says; `fedit-server task schema` describes it.")
    draft: bool = Field(False, description="Keep it back until it is opened.")
    owner: str = Field("", max_length=200, pattern=PLAIN, description="Who answers for it here.")
    retention: RetentionRules | None = None


class MadeTask(Reply):
    """A task that was published, or kept as a draft."""

    task: str
    version: int
    state: str
    owner: str


class TaskPatch(Body):
    """What a new version changes, as a JSON merge patch (RFC 7396) of what the task file says."""

    changes: dict[str, Any]
    dry_run: bool = Field(False, description="Only say what would change.")


class WholeTask(Body):
    """A task as it shall be from now on."""

    task: dict[str, Any] = Field(description="What a task file says; its version may be left as it is.")
    dry_run: bool = Field(False, description="Only say what would change.")
    retention: RetentionRules | None = Field(None, description="What it keeps from now on; null: as before.")


class TaskFile(Reply):
    """A published task as a file to edit: what differs from the defaults."""

    task: str
    toml: str


class SettingChange(Reply):
    """One setting that is no longer as it was."""

    name: str
    old: str
    new: str


class EditedTask(Reply):
    """A new version, and what each device's owner is asked again."""

    task: str
    version: int
    old_version: int
    draft: bool
    changes: tuple[SettingChange, ...]
    published: bool


class Reasoned(Body):
    """Why somebody does something."""

    reason: str = Field("", max_length=150, pattern=PLAIN, description="For devices and records.")


class RunningServer(Reply):
    """The process that serves."""

    running: bool
    pid: int | None
    url: str | None


class FederationInfo(Reply):
    """Which federation this is."""

    id: str
    pin: DigestHex


class AuthorityInfo(Reply):
    """Where devices are admitted, and what waits for it."""

    apart: bool
    waiting: int
    waiting_since: Seconds | None


class ClientCounts(Reply):
    """How many devices there are."""

    enrolled: int


class CertificateInfo(Reply):
    """The certificate on the server's disk; there is none behind a Unix socket, where the proxy has it."""

    until: int = Field(description="When it ends: seconds since 1970, UTC.")
    days_left: int
    ends_soon: bool = Field(description="Whether somebody has to do something about it.")


class Overview(Reply):
    """Everything at a glance."""

    server: RunningServer
    federation: FederationInfo
    tasks: tuple[TaskStatus, ...]
    authority: AuthorityInfo
    clients: ClientCounts
    certificate: CertificateInfo | None = None
    last_backup: int | None = Field(None, description="when the last backup was made, in seconds since 1970")
