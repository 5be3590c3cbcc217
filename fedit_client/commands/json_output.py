"""What `--json` prints, as models: the published JSON Schemas come from these. Fields are only ever added."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedit_client.console import EVENT_SCHEMA, SCHEMA


class ErrorWords(BaseModel):
    """Why a command failed."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(pattern=r"^(FEDIT-[A-Z]\d{3}|INTERRUPTED)$", description="stable; `fedit-client help CODE`")
    message: str = Field(description="what happened, in words")
    where: str | None = Field(description="the file, line, address or setting")
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


class EventLine(BaseModel):
    """One line of a command that goes on, before its envelope; kinds are `fedit_client.EventKind` and may be added."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal["fedit.event/1"] = Field(alias="schema")
    time: float = Field(description="seconds since 1970, UTC")
    kind: str
    text: str | None = Field(None, description="the event in words")
    progress: float | None = Field(None, ge=0, le=1)
    stage: str | None = None
    round: int | None = None
    loss: float | None = None
    adapter_version: int | None = None
    tokens_per_second: float | None = None
    stage_eta_s: float | None = Field(None, ge=0, description="until the stage is done, from this machine's history")
    eta_s: float | None = Field(None, ge=0, description="until this device's part of the round is done")


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas by their names."""
    return {SCHEMA: Envelope.model_json_schema(), EVENT_SCHEMA: EventLine.model_json_schema()}


def schema_lines() -> list[str]:
    """The same, for `fedit-client help json`."""
    return json.dumps(schemas(), indent=2).splitlines()
