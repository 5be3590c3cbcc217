"""Every answer, paid for as most are, in one file that is only appended to: the record of a run and its cache in one.

A line is on the disk before the next question is asked; a run that was cut off goes on where it stopped.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedit_client.home.durable import append_durably, translating, write_atomic
from fedit_client.judging.agreement import Choice
from fedit_client.judging.endpoint import Reply
from fedit_protocol.errors import EvaluationError

SCHEMA: Final = "fedit.judge/1"
REPLY: Final = "reply"
RESULT: Final = "result"
VALIDATION: Final = "validation"
_CHOICES: Final = {"A": Choice.FIRST, "B": Choice.SECOND, "C": Choice.TIE}
_CHOICE: Final = re.compile(r"\[\[([ABC])\]\]")
_NUMBER: Final = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w.])")
_ALONE: Final = re.compile(r"\d+(?:\.\d+)?[\s,]+\d+(?:\.\d+)?")
_RATING: Final = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")
_LOWEST: Final = 1.0
_HIGHEST: Final = 10.0


def key_of(identity: Mapping[str, Any], messages: Sequence[Mapping[str, str]], repeat: int, attempt: int) -> str:
    """Return the digest of everything that a reply may depend on."""
    asked = {**identity, "messages": list(messages), "repeat": repeat, "attempt": attempt}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass
class VerdictFile:
    """The replies of a file, by key, and the results and validations that it records; appended to as they come."""

    path: Path
    _replies: dict[str, Reply] = field(default_factory=dict, repr=False)
    validations: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> "VerdictFile":
        """Return a file's replies, none if it is new; a last line that a crash cut off is dropped.

        Raises EvaluationError V015 for a file of something else, StorageError.
        """
        found = cls(path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            return found
        with translating(path):
            content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_atomic(path, whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                found._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError("this is no file of verdicts", code="V015", where=f"{path}, line {number}",
                                      fix="name another file with --out") from error  # fmt: skip
        return found

    def _take(self, row: dict[str, Any]) -> None:
        if row["schema"] != SCHEMA:
            raise ValueError(row["schema"])
        if row["kind"] in {VALIDATION, RESULT}:
            (self.validations if row["kind"] == VALIDATION else self.results).append(row)
            return
        reply = Reply(row["reply"], row["prompt_tokens"], row["completion_tokens"])
        if reply.is_answer:  # a file of before may hold a proxy's page, whose question is still open
            self._replies[row["key"]] = reply

    def known(self, key: str) -> Reply | None:
        """Return a reply that is there already."""
        return self._replies.get(key)

    def add(self, key: str, reply: Reply, about: Mapping[str, Any]) -> None:
        """Keep a reply, and return when it is on the disk; raises StorageError."""
        self._write({"kind": REPLY, "key": key, **about, "reply": reply.text,
                     "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens})  # fmt: skip
        self._replies[key] = reply

    def add_validation(self, fields: Mapping[str, Any]) -> None:
        """Keep how far a judge agreed with people; raises StorageError."""
        row = {"schema": SCHEMA, "kind": VALIDATION, **fields}
        self._write(row)
        self.validations.append(row)

    def add_results(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a run has found, unless the last one found the same; raises StorageError."""
        if self.results[-len(found) :] == found:
            return
        for row in found:
            self._write(row)
            self.results.append(dict(row))

    def _write(self, row: Mapping[str, Any]) -> None:
        append_durably(self.path, json.dumps({"schema": SCHEMA, **row}, ensure_ascii=False).encode() + b"\n")


def parse_scores(reply: str) -> tuple[float, float] | None:
    """Return two scores from 0 to 10, or None: those of the first line, if it holds exactly two numbers.

    Else those of the last line that is nothing but two numbers: Vicuna's prompt for mathematics has the judge solve the
    problem first. Its scale begins at 1; judges give 0 to an answer that is not there.
    """
    lines = list(_filled_lines(reply))
    alone = [line for line in lines if _ALONE.fullmatch(line.strip())]
    return _two(lines[0]) or (_two(alone[-1]) if alone else None) if lines else None


def _two(line: str) -> tuple[float, float] | None:
    numbers = [float(found) for found in _NUMBER.findall(line)]
    if len(numbers) != 2 or max(numbers) > _HIGHEST:
        return None
    return numbers[0], numbers[1]


def parse_choice(reply: str) -> Choice | None:
    """Return the last verdict [[A]], [[B]] or [[C]] of a reply, or None if it has none."""
    found = _CHOICE.findall(reply)
    return _CHOICES[found[-1]] if found else None


def parse_rating(reply: str) -> float | None:
    """Return the last rating of a reply, such as [[7]] or [[7.5]], or None if that is none from 1 to 10."""
    found = _RATING.findall(reply)
    return rating if found and _LOWEST <= (rating := float(found[-1])) <= _HIGHEST else None


def _filled_lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.strip())
