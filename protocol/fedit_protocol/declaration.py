"""What a device may say of itself when it checks in (SPEC, section 23)."""

from typing import Annotated

from pydantic import Field

from fedit_protocol.encoding import AsTuple, Message


class Declaration(Message):
    """What a device says of itself for a task that draws by it: coarse, and only with its owner's leave."""

    domains: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], AsTuple, Field(max_length=64)] = Field(
        description="the task's domains that it has more than a little of, sorted; empty: not said"
    )
    round_s: int | None = Field(
        None, ge=1, le=2**20, description="seconds that it expects a round to take, rounded up to a power of two"
    )
