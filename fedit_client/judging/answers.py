"""Files of answers that a judge compares: one JSON object a line, as `eval models --answers` writes them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedit_client.home.durable import translating
from fedit_client.judging.prompts import Turn
from fedit_protocol.errors import EvaluationError


@dataclass(frozen=True, eq=False)
class Question:
    """One question with the answers of several models, and perhaps a right one; each is itself alone.

    The second turn of a conversation is a question of its own, with the first turn in `before`.
    """

    name: str
    category: str
    text: str = field(repr=False)
    answers: Mapping[str, str] = field(repr=False)
    reference: str = field(default="", repr=False)
    before: "Question | None" = field(default=None, repr=False)

    @property
    def turn(self) -> int:
        """1, or 2 for what was asked after an answer."""
        return 1 if self.before is None else 2


@dataclass(frozen=True)
class Contest:
    """One question and the two models whose answers to it are compared."""

    question: Question
    ours: str
    theirs: str

    def answers(self, *, swapped: bool) -> tuple[str, str]:
        """Return the answers in the order in which the judge sees them."""
        return self._pair(self.question, swapped)

    def turn_before(self, *, swapped: bool) -> Turn | None:
        """Return what was asked and answered before, in the same order; None in a first turn."""
        before = self.question.before
        return None if before is None else Turn(before.text, *self._pair(before, swapped), before.reference)

    def _pair(self, question: Question, swapped: bool) -> tuple[str, str]:
        pair = question.answers[self.ours], question.answers[self.theirs]
        return pair[::-1] if swapped else pair


def read_questions(paths: Iterable[Path]) -> list[Question]:
    """Return the questions of all files, the answers of one question together; raises EvaluationError V016.

    Two turns are lists of two texts, `question` (or MT-Bench's `turns`) and `answer`: each turn becomes a question.
    """
    rows: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in paths:
        with translating(path):
            lines = path.read_text("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name = str(row["question_id"])
                asked = _turns(row["turns"] if "question" not in row and "turns" in row else row["question"])
                first = rows.setdefault(name, {**row, "question": asked})
                answers.setdefault(name, {})[str(row["model"])] = _turns(row["answer"], len(first["question"]))
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(
                    "this is no answer of a model",
                    code="V016",
                    where=f"{path}, line {number}",
                    fix="give JSON lines with question_id, question, model, answer",
                ) from error
    return [question for name, row in rows.items() for question in _questions(name, row, answers[name])]


def _questions(name: str, row: Mapping[str, Any], answers: Mapping[str, Sequence[str]]) -> Iterator[Question]:
    given = row.get("reference") or row.get("gpt4_reference") or ""
    references, before = given if isinstance(given, list) else [given], None
    for place, text in enumerate(row["question"]):
        reference = str(references[place] or "") if place < len(references) else ""
        of_turn = {model: turns[place] for model, turns in answers.items()}
        before = Question(name, str(row.get("category", "")), text, of_turn, reference, before)
        yield before


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
    first = set(list(dict.fromkeys(question.name for question in questions))[:most])
    found = [
        Contest(question, model, theirs)
        for model in wanted
        for question in questions
        if question.name in first and model in question.answers and theirs in question.answers
    ]
    if not found:
        raise _unknown(f"no question was answered by {theirs} and by another model")
    return found


def _unknown(reason: str) -> EvaluationError:
    return EvaluationError(reason, code="V016", fix="--compare and --against name two models of the files")


def _turns(value: object, count: int | None = None) -> tuple[str, ...]:
    """One text, or two in a list; as many as the question has, where that is known."""
    found = tuple(value) if isinstance(value, list) else (value,)
    if len(found) not in (1, 2) or count not in (None, len(found)):
        raise TypeError("not one turn or two")
    if not all(isinstance(text, str) for text in found):
        raise TypeError("not a text")
    return found
