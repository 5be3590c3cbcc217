"""What `--json` prints, as a model: the published JSON Schema comes from it. Fields are only ever added."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedit_server.console import SCHEMA


class ErrorWords(BaseModel):
    """Why a command failed."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(pattern=r"^FEDIT-[A-Z]\d{3}$", description="stable; `fedit-server help CODE`")
    message: str = Field(description="what happened, in words")
    where: str | None = Field(description="the file, address or setting")
    fix: str | None = Field(description="the one command that helps, or words where none does")
    doc: str | None = Field(description="the command that shows the code's page, offline")
    exit: int = Field(ge=1, le=130, description="the exit status")


class Envelope(BaseModel):
    """The one JSON object that every command ends with."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["fedit/1"] = Field(alias="schema")
    command: str = Field(description="the command, two words for a group; empty if the line named none")
    ok: bool = Field(description="whether nothing went wrong and nothing is in the way")
    data: dict[str, Any] = Field(description="the command's own fields; often empty where it failed")
    warnings: list[str]
    error: ErrorWords | None


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema by its name."""
    return {SCHEMA: Envelope.model_json_schema()}


def schema_lines() -> list[str]:
    """The same, for `fedit-server help json`."""
    return json.dumps(schemas(), indent=2).splitlines()
