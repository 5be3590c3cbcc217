"""Answers that a judge grades by themselves, with MT-Bench's published prompts."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.console import Console
from fedit_client.conversations.judging import validate_judge
from fedit_client.conversations.reporting import read_findings
from fedit_client.judging.agreement import Choice
from fedit_client.judging.prompts import Mode

from .fake_judge import FakeJudge, Misbehaviour
from .test_judging import answers_in, judged, kept, labelled, wishes

pytest.importorskip("openai")


@pytest.fixture
def prompts(test_data: Path) -> Path:
    return test_data / "fastchat_judge_prompts.jsonl"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return answers_in(tmp_path)


def goodness(content: str) -> str:
    """Rate a good answer 9 and another one 6, whoever else has answered."""
    shown = content.rpartition("[The Start of Assistant's Answer]")[2]
    return f"It holds what was asked for.\nRating: [[{9 if 'good' in shown else 6}]]"


async def graded(fake: FakeJudge, answers: Path, prompts: Path, **fields: Any) -> Any:
    return await judged(fake, answers, mode=Mode.SCORE, prompts=prompts, **fields)


async def test_each_answer_is_graded_once_by_itself(answers: Path, prompts: Path) -> None:
    row = {"question": "Question 0?", "question_id": 0, "model": "third", "answer": "good too"}
    answers.write_text(answers.read_text() + json.dumps(row) + "\n")
    async with FakeJudge(goodness).serving() as fake:
        found = await graded(fake, answers, prompts)
        third, tuned = found.tallies
        asked = [request["messages"][-1]["content"] for request in fake.requests]
    assert (len(asked), kept(answers)) == (11, 11)  # the baseline's answer once, although two are compared with it
    assert not any("\nshort\n" in text and "good" in text for text in asked)
    assert (tuned.wins, tuned.scores, tuned.relative, tuned.consistent) == (5, (45.0, 30.0), 1.5, None)
    assert (third.ours, third.wins, third.valid) == ("third", 1, 1)
    told = "\n".join(tuned.lines())
    assert "mean score 9.00 to 6.00" in told
    assert "both orders" not in told


async def test_grades_are_asked_as_often_as_wanted_and_never_paid_twice(answers: Path, prompts: Path) -> None:
    async with FakeJudge(goodness).serving() as fake:
        (first,) = (await graded(fake, answers, prompts, repeats=3)).tallies
        (again,) = (await graded(fake, answers, prompts, repeats=3)).tallies
        assert (len(fake.requests), first.valid, first == again) == (30, 15, True)


async def test_a_reply_without_a_rating_is_no_grade(answers: Path, prompts: Path) -> None:
    nonsense = {n: Misbehaviour(text=text) for n, text in enumerate(("Rating: [[11]]", "seven", "[[rating]]"))}
    async with FakeJudge(goodness, nonsense).serving() as fake:
        (found,) = (await graded(fake, answers, prompts, at_once=1)).tallies
        assert len(fake.requests) == 10 + 2
    assert (found.valid, found.invalid, found.scores) == (4, 1, (36.0, 24.0))
    assert any("1 could not be read and count nowhere" in line for line in found.lines())


async def test_both_turns_of_a_conversation_are_graded_and_told_apart(
    answers: Path, prompts: Path, test_data: Path
) -> None:
    lines = (test_data / "mt_bench80_questions.jsonl").read_text("utf-8").splitlines()
    questions = [row for row in map(json.loads, lines) if row["question_id"] in (81, 111)]  # writing, math
    rows = [{**asked, "model": name, "answer": [f"{name} first", f"{name} second"]}
            for asked in questions for name in ("base", "tuned")]  # fmt: skip
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def later_is_better(content: str) -> str:
        return f"[[{('base first', 'tuned first', 'base second', 'tuned second').index(last(content)) + 1}]]"

    def last(content: str) -> str:
        names = ("base first", "tuned first", "base second", "tuned second")
        return max(names, key=content.rfind)

    async with FakeJudge(later_is_better).serving() as fake:
        (found,) = (await graded(fake, answers, prompts)).tallies
        asked = [request["messages"][-1]["content"] for request in fake.requests]
    assert found.turns == {1: (2.0, 1.0), 2: (4.0, 3.0)}
    assert "  mean score 3.00 to 2.00 (turn 1 2.00 to 1.00, turn 2 4.00 to 3.00)" in found.lines()
    (math,) = [row for row in questions if row["category"] == "math"]
    assert sum(math["reference"][0] in text for text in asked) == 4
    assert sum("Reference" in text for text in asked) == 4
    written = [json.loads(line) for line in (answers.parent / "verdicts.jsonl").read_text().splitlines()]
    assert {row["graded"] for row in written if row["kind"] == "reply"} == {"base", "tuned"}


async def test_grades_are_validated_in_one_order_and_reported(answers: Path, prompts: Path) -> None:
    pytest.importorskip("matplotlib")
    pairs = labelled(Choice.FIRST, Choice.FIRST, Choice.SECOND)

    def by_length(content: str) -> str:
        return "[[8]]" if "the longer one" in content or "good" in content else "[[4]]"

    async with FakeJudge(by_length).serving() as fake:
        asked = wishes(fake, answers, mode=Mode.SCORE, prompts=prompts)
        found = (await validate_judge(Console(quiet=True), asked, pairs, "Processed/MT-Bench")).found
        await graded(fake, answers, prompts)
    assert (found.pairs, found.agree, found.orders, found.consistency) == (3, 2, 1, None)
    reported = read_findings([asked.out], None)
    html = reported.page("Title").html()
    assert "<td>score, each answer alone</td><td>5</td>" in html
    assert "<td>8.00 to 4.00</td><td>2.000</td>" in html
    assert "not validated" in reported.judged.standing(reported.judged.results[0])


async def test_a_baseline_without_a_point_is_no_measure(answers: Path) -> None:
    def nothing(content: str) -> str:
        first = content.split("=== Answer 1 ===\n")[1].split("\n\n===", maxsplit=1)[0]
        return "5 0" if "good" in first else "0 5"

    async with FakeJudge(nothing).serving() as fake:
        (found,) = (await judged(fake, answers, mode=Mode.SCORE)).tallies
    assert (found.wins, found.scores, found.relative, found.relative_interval) == (5, (25.0, 0.0), None, None)
    assert any("sum of scores 25 to 0" in line for line in found.lines())
