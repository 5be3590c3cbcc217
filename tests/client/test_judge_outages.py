"""A judge behind a proxy that serves pages with status 200 for a while: what nobody has paid for is no answer."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedit_client.judging.endpoint import OpenAIEndpoint, Reply
from fedit_client.judging.verdicts import VerdictFile
from fedit_protocol.errors import EvaluationError

from .fake_judge import FakeJudge, Misbehaviour, longer
from .test_judging import answers_in, impatient, judged, kept

PAGE = Misbehaviour(body="<html>back soon</html>", content_type="text/html")


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return answers_in(tmp_path)


@dataclass
class Proxied(FakeJudge):
    """A judge that counts which questions have got an answer, and how often."""

    def __post_init__(self) -> None:
        self.answered: Counter[str] = Counter()

    async def answer(self, request: Any) -> Any:
        number = len(self.requests)
        reply = await super().answer(request)
        if number not in self.trouble:
            self.answered[json.dumps(self.requests[number]["messages"])] += 1
        return reply

    def each_once(self) -> bool:
        return list(self.answered.values()) == [1] * 10


def page(*numbers: int) -> dict[int, Misbehaviour]:
    return dict.fromkeys(numbers, PAGE)


def patient(asked: Any) -> OpenAIEndpoint:
    return OpenAIEndpoint(asked.address, asked.judge, "key", asked.temperature, retries=6, timeout_s=5, wait_s=0.001)


@pytest.mark.parametrize("at_once", [1, 4])
async def test_a_short_outage_is_waited_out(at_once: int, answers: Path) -> None:
    async with Proxied(longer, page(*range(4, 10))).serving() as fake:
        found = await judged(fake, answers, patient, at_once=at_once)
        assert (found.tallies[0].wins, found.as_data()["unanswered"], kept(answers)) == (5, 0, 10)
        assert fake.each_once()
        assert len(fake.requests) == 16


@pytest.mark.parametrize("at_once", [1, 4])
async def test_a_long_outage_stops_the_run_and_the_same_command_asks_what_is_open(at_once: int, answers: Path) -> None:
    async with Proxied(longer, page(*range(4, 60))).serving() as fake:
        for _ in range(2):  # the second run meets pages alone, but the file says that this is a judge
            with pytest.raises(EvaluationError) as failed:
                await judged(fake, answers, at_once=at_once)
            assert (failed.value.code, failed.value.exit_code, kept(answers)) == ("V013", 75, 4)
        fake.trouble = {}
        found = await judged(fake, answers, at_once=at_once)
        assert (found.tallies[0].wins, found.tallies[0].invalid, kept(answers)) == (5, 0, 10)
        assert fake.each_once()


async def test_a_question_without_an_answer_holds_up_no_other_and_is_open_for_the_next_run(answers: Path) -> None:
    async with Proxied(longer, page(3, 10, 11)).serving() as fake:
        first = await judged(fake, answers, at_once=1)
        assert (first.tallies[0].wins, first.tallies[0].invalid, kept(answers)) == (4, 1, 9)
        assert "no answer came to 1 question, counted as not read: the same command asks again" in first.lines()
        again = await judged(fake, answers, at_once=1)
        assert (again.tallies[0].wins, again.as_data()["unanswered"], kept(answers)) == (5, 0, 10)
        assert fake.each_once()


async def test_what_was_paid_for_before_an_outage_is_counted_once(answers: Path) -> None:
    trouble = {0: Misbehaviour(text="I cannot decide."), **page(1)}
    async with FakeJudge(longer, trouble).serving() as fake:
        told = (await judged(fake, answers, at_once=1)).as_data()
        assert (told["replies_asked"], told["replies_kept"], told["prompt_tokens"]) == (11, 0, 1100)
        assert (len(fake.requests), kept(answers)) == (12, 11)


async def test_pages_in_the_file_of_an_earlier_version_are_asked_again(answers: Path) -> None:
    async with Proxied(longer).serving() as fake:
        await judged(fake, answers)
        file = answers.parent / "verdicts.jsonl"
        rows = [json.loads(line) for line in file.read_bytes().splitlines()]
        rows[2] |= {"reply": "", "prompt_tokens": 0, "completion_tokens": 0}
        rows[5] |= {"reply": "", "prompt_tokens": 100, "completion_tokens": 0}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        opened = VerdictFile.open(file)
        assert opened.known(rows[2]["key"]) is None
        assert opened.known(rows[5]["key"]) == Reply("", 100, 0)
        found = await judged(fake, answers, impatient)
        # The page's question, and that of the empty reply, which was paid for and is asked another time.
        assert (found.tallies[0].wins, len(fake.requests)) == (5, 12)
