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
    SHAREGPT = "sharegpt"
    DOLLY = "dolly"
    ALPACA = "alpaca"
    PROMPT_COMPLETION = "prompt_completion"
    PREFERENCE = "preference"
    QUESTION_ANSWER = "question_answer"
    TEXT = "text"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Record:
    """One validated row: an optional system turn, then user and assistant in turn; the last one is the assistant's.

    A row of plain text is one assistant turn and nothing else: every token of it is trained on, under no template.
    `line` counts from 1 (the row number in parquet and in memory). `context` repeats the end of the first user turn
    where the row had a column of its own for it, so that the Alpaca templates can show it apart.
    """

    messages: tuple[Message, ...]
    category: str = ""
    line: int = 0
    context: str = ""

    @property
    def is_text(self) -> bool:
        """Whether this is plain text instead of a conversation."""
        return len(self.messages) == 1

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
    """A source's records, and everything about it that a person should be told.

    `skipped` is empty unless the caller asked to skip; `ignored_columns` were there and carry nothing for training;
    `notes` are sentences about choices that were made. A source of several files has them as `parts`, each with its
    own lines. Records and skipped rows together are all rows that the source has.
    """

    records: tuple[Record, ...]
    shape: Shape
    skipped: tuple[RowProblem, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    path: Path | None = None
    notes: tuple[str, ...] = ()
    parts: "tuple[RowFile, ...]" = ()

    def by_category(self) -> dict[str, list[Record]]:
        """Return the records of each category, categories in the order in which they first appear."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(record.category, []).append(record)
        return groups

    def by_file(self) -> "tuple[RowFile, ...]":
        """Return one RowFile for each file, this one if it is the only one."""
        return self.parts or (self,)
