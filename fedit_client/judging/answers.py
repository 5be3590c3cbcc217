"""Files of answers that a judge compares: one JSON object a line, as `eval models --answers` writes them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedit_client.home.durable import translating
from fedit_protocol.errors import EvaluationError


@dataclass(frozen=True, eq=False)
class Question:
    """One question with the answers of several models, and perhaps a right one; each is itself alone."""

    name: str
    category: str
    text: str = field(repr=False)
    answers: Mapping[str, str] = field(repr=False)
    reference: str = field(default="", repr=False)


@dataclass(frozen=True)
class Contest:
    """One question and the two models whose answers to it are compared."""

    question: Question
    ours: str
    theirs: str

    def answers(self, *, swapped: bool) -> tuple[str, str]:
        """Return the answers in the order in which the judge sees them."""
        pair = self.question.answers[self.ours], self.question.answers[self.theirs]
        return pair[::-1] if swapped else pair


def read_questions(paths: Iterable[Path]) -> list[Question]:
    """Return the questions of all files, the answers of one question together; raises EvaluationError V016."""
    rows: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, str]] = {}
    for path in paths:
        with translating(path):
            lines = path.read_text("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name = str(row["question_id"])
                answers.setdefault(name, {})[str(row["model"])] = _text(row["answer"])
                rows.setdefault(name, {**row, "question": _text(row["question"])})
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(
                    "this is no answer of a model",
                    code="V016",
                    where=f"{path}, line {number}",
                    fix="give JSON lines with question_id, question, model, answer",
                ) from error
    return [
        Question(name, str(row.get("category", "")), row["question"], answers[name],
                 str(row.get("reference") or row.get("gpt4_reference") or ""))
        for name, row in rows.items()
    ]  # fmt: skip


def contests(questions: Sequence[Question], ours: Sequence[str], theirs: str, most: int | None) -> list[Contest]:
    """Return each question that both models have answered, for each of ours against theirs.

    Without `ours` every other model is compared. Raises EvaluationError V016 for an unknown model or none in common.
    """
    known = sorted({name for question in questions for name in question.answers})
    wanted = list(ours) or [name for name in known if name != theirs]
    if missing := [name for name in (*wanted, theirs) if name not in known]:
        raise _unknown(f"no model is called {', '.join(missing)}: there are {', '.join(known)}")
    if theirs in wanted:
        raise _unknown(f"{theirs} would be compared with itself")
    found = [
        Contest(question, model, theirs)
        for model in wanted
        for question in questions[:most]
        if model in question.answers and theirs in question.answers
    ]
    if not found:
        raise _unknown(f"no question was answered by {theirs} and by another model")
    return found


def _unknown(reason: str) -> EvaluationError:
    return EvaluationError(reason, code="V016", fix="--compare and --against name two models of the files")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
