"""What a judge's run has cost is said however it ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fedit_client.console import Console
from fedit_client.conversations.judging import run_judge
from fedit_protocol.errors import EvaluationError

from .fake_judge import FakeJudge, Misbehaviour, longer
from .test_judging import answers_in, impatient, wishes

pytest.importorskip("openai")


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return answers_in(tmp_path)


@pytest.mark.parametrize("ends", ["fails", "is stopped"])
async def test_a_run_that_ends_early_says_what_it_has_cost(
    ends: str, answers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopping(FakeJudge):
        async def answer(self, request: Any) -> Any:
            if len(self.requests) == 3 and ends == "is stopped":
                running.cancel()
            return await super().answer(request)

    async with Stopping(longer, {3: Misbehaviour(500)}).serving() as fake:
        asked = wishes(fake, answers, at_once=1, price_in=1.0, price_out=2.0)
        for replies in ("3 new replies, 0", "0 new replies, 3"):  # the second run finds in the file what was paid
            running = asyncio.create_task(run_judge(Console(), asked, [answers], (), "base", impatient))
            with pytest.raises(
                asyncio.CancelledError if ends == "is stopped" and replies[0] == "3" else EvaluationError
            ):
                await running
            fake.trouble = {4: Misbehaviour(500)}
            told = capsys.readouterr().err
            assert f"cost: {replies} from the file; 300 tokens asked, 30 answered; 0.0004, of which now " in told
            assert "the same command goes on from there" in told


async def test_a_run_that_had_no_reply_speaks_of_no_cost(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeJudge(longer, {0: Misbehaviour(500)}).serving() as fake:
        with pytest.raises(EvaluationError):
            await run_judge(Console(), wishes(fake, answers, at_once=1), [answers], (), "base", impatient)
    assert "cost" not in capsys.readouterr().err
