"""What a judge is asked once: two answers in one order, or one answer by itself; and what its reply means."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fedit_client.judging.agreement import Choice
from fedit_client.judging.answers import Contest, Question
from fedit_client.judging.prompts import JudgePrompt
from fedit_client.judging.verdicts import parse_choice, parse_rating, parse_scores

Scores = tuple[float, float]
_TURNED: Final = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST, Choice.TIE: Choice.TIE}


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one contest, in the contest's own order: ours, then theirs. `scores` only in score mode."""

    choice: Choice
    scores: Scores | None = None


class Asked(Protocol):
    """One thing that a judge is asked."""

    @property
    def question(self) -> Question:
        """The question whose answers are shown."""
        ...

    @property
    def repeat(self) -> int:
        """The how many-eth time it is asked, from 0."""
        ...

    def messages(self, prompt: JudgePrompt) -> list[dict[str, str]]:
        """Return the conversation."""
        ...

    def about(self) -> dict[str, Any]:
        """Whose answers are shown, for people who read the file."""
        ...


@dataclass(frozen=True)
class Trial:
    """One contest in one order; `swapped` shows their answer first."""

    contest: Contest
    repeat: int
    swapped: bool

    @property
    def question(self) -> Question:
        """The question of the contest."""
        return self.contest.question

    def messages(self, prompt: JudgePrompt) -> list[dict[str, str]]:
        """Return the conversation, both answers in this order."""
        first, second = self.contest.answers(swapped=self.swapped)
        before = self.contest.turn_before(swapped=self.swapped)
        return prompt.messages(self.question.text, first, second, self.question.reference, before)

    def about(self) -> dict[str, Any]:
        """Whose answers are shown, in this order."""
        pair = self.contest.ours, self.contest.theirs
        first, second = pair[::-1] if self.swapped else pair
        return {"first": first, "second": second}


@dataclass(frozen=True)
class Grading:
    """One model's answer to a question, by itself."""

    question: Question
    model: str
    repeat: int

    def messages(self, prompt: JudgePrompt) -> list[dict[str, str]]:
        """Return the conversation, with the answer in both places: the prompt shows one."""
        return Trial(Contest(self.question, self.model, self.model), self.repeat, swapped=False).messages(prompt)

    def about(self) -> dict[str, Any]:
        """Whose answer is shown."""
        return {"graded": self.model}


def both_orders(contests: Iterable[Contest], repeats: int) -> list[Trial]:
    """Return every contest in both orders, as often as wanted."""
    return [
        Trial(contest, repeat, swapped)
        for contest in contests
        for repeat in range(repeats)
        for swapped in (False, True)
    ]


def each_alone(contests: Iterable[Contest], repeats: int) -> list[Grading]:
    """Return every answer of the contests, each once however many it is compared with, as often as wanted."""
    return list(
        dict.fromkeys(
            Grading(contest.question, model, repeat)
            for contest in contests
            for repeat in range(repeats)
            for model in (contest.ours, contest.theirs)
        )
    )


def by_choice(trial: Trial, reply: str) -> Verdict | None:
    """Return the verdict of a reply in pairwise mode."""
    choice = parse_choice(reply)
    return None if choice is None else Verdict(_TURNED[choice] if trial.swapped else choice)


def by_scores(trial: Trial, reply: str) -> Verdict | None:
    """Return the verdict of a reply with two scores."""
    scores = parse_scores(reply)
    return None if scores is None else _compared(*(scores[::-1] if trial.swapped else scores))


def by_rating(_: Grading, reply: str) -> float | None:
    """Return the rating of one answer."""
    return parse_rating(reply)


def paired(
    contests: Iterable[Contest], repeats: int, ratings: Mapping[Grading, float | None]
) -> dict[Trial, Verdict | None]:
    """Return what the ratings of single answers say of contests: there is one order, and None where one is missing."""
    found: dict[Trial, Verdict | None] = {}
    for contest in contests:
        for repeat in range(repeats):
            ours, theirs = (
                ratings[Grading(contest.question, model, repeat)] for model in (contest.ours, contest.theirs)
            )
            verdict = None if ours is None or theirs is None else _compared(ours, theirs)
            found[Trial(contest, repeat, swapped=False)] = verdict
    return found


def preferred(ours: float, theirs: float) -> Choice:
    """Return which of two scores is the higher one."""
    return Choice.TIE if ours == theirs else Choice.FIRST if ours > theirs else Choice.SECOND


def _compared(ours: float, theirs: float) -> Verdict:
    return Verdict(preferred(ours, theirs), (ours, theirs))
