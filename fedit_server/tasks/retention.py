"""How long a task's adapters and rounds are kept: the table `[retention]` of a task file, which is never published."""

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_protocol.errors import ConfigError

TABLE: Final = "retention"


class Retention(BaseModel):
    """Which adapter versions keep their content, and how long it is known who was in a round.

    Digests, results and figures of every version and round are kept for good, whatever is set here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_last: int | None = Field(
        None, ge=1, le=1_000_000, description="how many of the newest versions; left out: all"
    )
    keep_every: int = Field(0, ge=0, le=1_000_000, description="also every so-many-th version, from 0 on; 0: none")
    rounds_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="after so many days it is forgotten who was invited to a round; left out: never",
    )

    def beyond(self, versions: Collection[int], needed: Collection[int] = ()) -> set[int]:
        """Return the versions whose content may go. The newest stays, and so does what is `needed`."""
        if self.keep_last is None or not versions:
            return set()
        newest = set(sorted(versions)[-self.keep_last :])
        steps = {version for version in versions if self.keep_every and version % self.keep_every == 0}
        return set(versions) - newest - steps - set(needed)


def take_retention(values: dict[str, Any], where: str) -> Retention | None:
    """Take the table out of a task file's values; raises ConfigError C103 naming the key that is wrong."""
    if TABLE not in values:
        return None
    try:
        return Retention.model_validate(values.pop(TABLE))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        key = ".".join([TABLE, *map(str, fault["loc"])])
        reason = "this key does not exist" if fault["type"] == "extra_forbidden" else fault["msg"]
        names = ", ".join(Retention.model_fields)
        raise ConfigError(
            f"{key}: {reason[:1].lower()}{reason[1:]}", code="C103", where=where, fix=f"[{TABLE}] has {names}"
        ) from error


def load_retention(path: Path) -> Retention | None:
    """Return what a task file that `load_task` takes says of it."""
    return take_retention(tomllib.loads(path.read_text("utf-8")), str(path))
