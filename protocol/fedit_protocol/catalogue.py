"""What a server lists: its tasks, and the newest global adapter of each (SPEC, section 7). Replies, so unsigned.

A client trusts none of it: the task document is held against the owner's consent and against the digest in the signed
offer, the adapter's bytes against the digest in the same offer.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from fedit_protocol.encoding import AsTuple, DigestText, Message
from fedit_protocol.ids import TaskId
from fedit_protocol.messages import BlobRef
from fedit_protocol.task import SLUG
from fedit_protocol.task_tables import absent_at


class TaskState(StrEnum):
    """What a task is doing. Devices hear of drafts and archived tasks as little as of tasks that never were."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"
    ARCHIVED = "archived"


LISTED = frozenset({TaskState.ACTIVE, TaskState.PAUSED, TaskState.FINISHED})
"""The states of a task that devices are told of."""


class TaskListing(Message):
    """One task: the canonical bytes of its TaskDocument, and its state."""

    document: bytes
    state: str = Field(max_length=32, description="active, paused or finished; a client treats other words as paused")


class TaskList(Message):
    """Every task of the server, in the order of their ids."""

    tasks: Annotated[tuple[TaskListing, ...], AsTuple, Field(max_length=1024)]


class AdapterInfo(Message):
    """The newest committed global adapter of a task; `digest` names the blob that holds its bytes."""

    task_id: Annotated[TaskId, Field(pattern=SLUG)]
    version: int = Field(ge=0, description="0 is the untrained adapter that the first round starts from")
    digest: DigestText
    parent_digest: DigestText | Literal[""] = Field(description="the adapter before this one; empty for version 0")
    round_no: int = Field(ge=0, description="the round that it came from; 0 for version 0")
    state: BlobRef | None = Field(
        None,
        exclude_if=absent_at(None),
        description="from version 2.2 on: what the task's method has devices know besides the adapter",
    )
