"""Question after question to a judge; what was paid for is never asked again."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from fedit_client.judging.endpoint import Endpoint, Reply, went_on_failing
from fedit_client.judging.prompts import JudgePrompt, chosen
from fedit_client.judging.trials import Asked
from fedit_client.judging.verdicts import VerdictFile, key_of
from fedit_protocol.errors import EvaluationError, FeditError

_ATTEMPTS: Final = 3
"""How often a question is asked whose reply cannot be read, or is no answer: once, and twice more."""
_EMPTY_AT_FIRST: Final = 6
"""Replies without text, and none with, after which nobody is asked any more."""
_SILENT_IN_A_ROW: Final = 6
"""Replies that are no answers, one after the other, after which nobody is asked any more."""
_LAST_WORDS_S: Final = 60.0
"""How long a run that is stopped waits for replies that are on their way, and paid for."""

T = TypeVar("T", bound=Asked)
V = TypeVar("V")


@dataclass
class Costs:
    """What a run has asked, and what it found in its file."""

    asked: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unanswered: int = 0
    """Questions to which no answer came; the next run asks them."""

    def price(self, prompt: float, completion: float) -> float:
        """Return the price, given those of a million tokens of questions and of replies."""
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6


class _NoAnswerError(Exception):
    """What came back is no answer, and is not kept."""


@dataclass
class Court:
    """A judge, its prompts, and the file of its replies."""

    endpoint: Endpoint
    prompts: Sequence[JudgePrompt]
    file: VerdictFile
    at_once: int = 4
    costs: Costs = field(default_factory=Costs)
    new: Costs = field(default_factory=Costs)
    """The part of the costs that this run has caused."""
    _texts: int = 0
    _silent: int = 0
    _counted: set[str] = field(default_factory=set)
    _failure: FeditError | None = None

    def open_questions(self, trials: Iterable[Asked]) -> int:
        """Return how many trials have no reply in the file yet."""
        return sum(map(self._is_open, trials))

    def question_chars(self, trials: Iterable[Asked]) -> int:
        """Return how many characters the questions without a reply have."""
        left = filter(self._is_open, trials)
        return sum(len(message["content"]) for trial in left for message in self._messages(trial))

    async def judge(
        self, trials: Sequence[T], read: Callable[[T, str], V | None], on_verdict: Callable[[int, int], None]
    ) -> Mapping[T, V | None]:
        """Return what `read` makes of the replies; None where it can read none. What was paid for is in the file,
        however this ends.

        A question that got no answer goes to the end of the line. Raises the endpoint's errors, EvaluationError V013 if
        answers stop coming, V014 if nothing that comes back is an answer, StorageError.
        """
        found: dict[T, V | None] = {}
        asked_in_vain: Counter[T] = Counter()
        # What the file knows comes first: it tells an address that is no judge's from a judge that is away.
        waiting = deque(sorted(trials, key=self._is_open))

        async def ask_on() -> None:
            while waiting and self._failure is None:
                trial = waiting.popleft()
                try:
                    found[trial] = await self._verdict(trial, read)
                except _NoAnswerError:
                    asked_in_vain[trial] += 1
                    if asked_in_vain[trial] < _ATTEMPTS:
                        waiting.append(trial)
                        continue
                    found[trial] = None
                    self.new.unanswered += 1
                except FeditError as error:
                    self._failure = self._failure or error
                    return
                on_verdict(len(found), len(trials))

        workers = [asyncio.create_task(ask_on()) for _ in range(max(1, min(self.at_once, len(trials))))]
        try:
            await asyncio.wait(workers)
        except asyncio.CancelledError:
            self._failure = self._failure or EvaluationError("stopped", code="V013")
            await asyncio.wait(workers, timeout=_LAST_WORDS_S)
            raise
        finally:
            for worker in workers:
                worker.cancel()
        if self._failure is not None:
            raise self._failure
        for worker in workers:
            worker.result()  # a bug in there is not a verdict that is missing
        return found

    async def _verdict(self, trial: T, read: Callable[[T, str], V | None]) -> V | None:
        for attempt in range(_ATTEMPTS):
            if (reply := await self._reply(trial, attempt)) is None:
                return None
            if (verdict := read(trial, reply.text)) is not None:
                return verdict
        return None

    async def _reply(self, trial: Asked, attempt: int) -> Reply | None:
        """Return the reply from the file, or ask; None if the run is being stopped. Raises _NoAnswerError."""
        key = self._key(trial, attempt)
        if (known := self.file.known(key)) is not None:
            if key not in self._counted:
                self._counted.add(key)
                self.costs.kept += 1
                self._count(self.costs, known)
            return known
        if self._failure is not None:
            return None
        reply = await self.endpoint.ask(self._messages(trial))
        if not reply.is_answer:
            self._silent += 1
            if self._silent >= _SILENT_IN_A_ROW:
                raise self._no_answers(self._silent, has_answered=bool(self._texts or self.costs.kept))
            raise _NoAnswerError
        self._silent = 0
        # Not in a thread: what was paid for is on the disk before anything else can happen.
        self.file.add(key, reply, self._about(trial, attempt))
        self._counted.add(key)
        self._texts += bool(reply.text.strip())
        for costs in (self.costs, self.new):
            costs.asked += 1
            self._count(costs, reply)
        if not self._texts and self.new.asked >= _EMPTY_AT_FIRST:
            raise self._no_answers(self.new.asked, has_answered=False)
        return reply

    def _no_answers(self, replies: int, *, has_answered: bool) -> EvaluationError:
        url = str(self.endpoint.identity["url"])
        if has_answered:
            return went_on_failing(url, f"{replies} replies in a row are no answers")
        return EvaluationError(
            f"{replies} replies came back without any text",
            code="V014",
            where=url,
            fix="does --url end with /v1, or whatever stands before /chat/completions?",
        )

    def _is_open(self, trial: Asked) -> bool:
        return self.file.known(self._key(trial, 0)) is None

    def _key(self, trial: Asked, attempt: int) -> str:
        return key_of(self.endpoint.identity, self._messages(trial), trial.repeat, attempt)

    def _prompt(self, trial: Asked) -> JudgePrompt:
        question = trial.question
        reference = question.reference or (question.before.reference if question.before else "")
        return chosen(self.prompts, question.category, has_reference=bool(reference), turn=question.turn)

    def _messages(self, trial: Asked) -> list[dict[str, str]]:
        return trial.messages(self._prompt(trial))

    def _about(self, trial: Asked, attempt: int) -> dict[str, Any]:
        """What a person who reads the file wants to know; the key alone decides what is found again."""
        question, prompt = trial.question, self._prompt(trial)
        return {"question_id": question.name, "turn": question.turn, "category": question.category, **trial.about(),
                "repeat": trial.repeat, "attempt": attempt, "mode": prompt.mode.value, "prompt": prompt.name,
                "prompt_hash": prompt.digest, **self.endpoint.identity}  # fmt: skip

    @staticmethod
    def _count(costs: Costs, reply: Reply) -> None:
        costs.prompt_tokens += reply.prompt_tokens
        costs.completion_tokens += reply.completion_tokens
