"""What a row becomes: a conversation with its category and the line that it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Shape(StrEnum):
    """The column sets that are recognised."""

    MESSAGES = "messages"
    DOLLY = "dolly"
    ALPACA = "alpaca"
    PROMPT_COMPLETION = "prompt_completion"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Record:
    """One validated row: an optional system turn, then user and assistant in turn; the last one is the assistant's.

    `line` counts from 1 (the row number in parquet and in memory). `context` repeats the end of the first user turn
    where the row had a column of its own for it, so that the Alpaca templates can show it apart.
    """

    messages: tuple[Message, ...]
    category: str = ""
    line: int = 0
    context: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for the pipe to the training worker."""
        turns = [[message.role.value, message.content] for message in self.messages]
        return {"messages": turns, "category": self.category, "line": self.line, "context": self.context}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_json` described."""
        turns = tuple(Message(Role(role), content) for role, content in value["messages"])
        return cls(turns, value["category"], value["line"], value["context"])


@dataclass(frozen=True)
class RowProblem:
    """Why one row cannot be used; `code` is the DataError code that stopping on it would have."""

    line: int
    code: str
    reason: str


@dataclass(frozen=True)
class RowFile:
    """A file's records, and everything about it that a person should be told.

    `skipped` is empty unless the caller asked to skip; `ignored_columns` were there and carry nothing for training.
    """

    records: tuple[Record, ...]
    shape: Shape
    skipped: tuple[RowProblem, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    path: Path | None = None

    def by_category(self) -> dict[str, list[Record]]:
        """Return the records of each category, categories in the order in which they first appear."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(record.category, []).append(record)
        return groups
