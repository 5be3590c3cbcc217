"""What the models of every resource share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MOST_LISTED: Final = 200
"""How many of a growing list one answer may hold."""

SAFE_INTEGER: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps (RFC 8259, section 6)."""

PLAIN: Final = r"^[^\x00-\x1f\x7f]*$"
"""Text without control characters: it ends up in terminals, in records, and in databases that refuse NUL."""

Seconds = Annotated[int, Field(ge=0, le=SAFE_INTEGER, description="Whole seconds since 1970, UTC.")]
DigestHex = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$", description="sha256:…; empty for nothing.")]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)
"""On a number in a body: 60.0 is the integer 60 too, for JSON has one kind of number. The bounds stand before it."""


class Body(BaseModel):
    """What a request brings: nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Reply(BaseModel):
    """What an answer says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Query(BaseModel):
    """What stands behind the question mark: text, so numbers are converted; nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Page(Query):
    """Which part of a growing list."""

    after: int | None = Field(
        None, ge=0, le=SAFE_INTEGER, description="`next` of the answer before; leave it out first."
    )
    limit: int = Field(50, ge=1, le=MOST_LISTED, description="How many at most.")


@dataclass(frozen=True)
class FileReply:
    """A file instead of JSON."""

    path: Path
    name: str


class Listed(Reply):
    """A part of a growing list."""

    next: int | None = Field(description="Pass it as `after` for the next part; null at the end.")
