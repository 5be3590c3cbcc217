"""A judge over real HTTP: both orders, replies that are paid once, and servers that misbehave."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedit_client.console import Console
from fedit_client.conversations.judging import JudgeWishes, connect, run_judge, validate_judge
from fedit_client.judging.agreement import Choice
from fedit_client.judging.endpoint import OpenAIEndpoint, Reply, check_address
from fedit_client.judging.labels import LabelledPair
from fedit_client.judging.prompts import Mode
from fedit_client.judging.verdicts import VerdictFile
from fedit_client.records.contacts import CONTACTS, JUDGE, Contacts, every_host
from fedit_protocol.errors import ConfigError, EvaluationError, FeditError

from .fake_judge import FakeJudge, Misbehaviour, first_one, longer, scores

pytest.importorskip("openai")


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return answers_in(tmp_path)


def answers_in(folder: Path) -> Path:
    rows = [
        {"question_id": n, "category": "open_qa", "question": f"Question {n}?", "model": model, "answer": answer}
        for n in range(5)
        for model, answer in (("base", "short"), ("tuned", "a good and long answer"))
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "answers.jsonl"


def wishes(fake: FakeJudge, answers: Path, **fields: Any) -> JudgeWishes:
    return JudgeWishes("fake-model", answers.parent / "verdicts.jsonl", fake.url, **{"at_once": 2, **fields})


def impatient(asked: JudgeWishes) -> OpenAIEndpoint:
    return OpenAIEndpoint(asked.address, asked.judge, "key", asked.temperature, retries=0, timeout_s=5)


async def judged(fake: FakeJudge, answers: Path, to: Any = impatient, **fields: Any) -> Any:
    return await run_judge(Console(quiet=True), wishes(fake, answers, **fields), [answers], (), "base", to)


def kept(answers: Path) -> int:
    """How many replies are in the file."""
    return (answers.parent / "verdicts.jsonl").read_text().count('"kind": "reply"')


async def test_both_orders_are_asked_and_must_agree(answers: Path) -> None:
    async with FakeJudge(longer).serving() as fake:
        (found,) = (await judged(fake, answers)).tallies
        assert (found.wins, found.ties, found.losses, found.invalid) == (5, 0, 0, 0)
        assert (found.win_rate, found.consistency, found.interval) == (1.0, 1.0, (1.0, 1.0))
        assert found.lengths == (5.0, 1.0)
        assert len(fake.requests) == 10
        assert {asked["temperature"] for asked in fake.requests} == {0.0}


async def test_a_judge_that_likes_the_first_place_has_no_preference(answers: Path) -> None:
    async with FakeJudge(first_one).serving() as fake:
        (found,) = (await judged(fake, answers)).tallies
    assert (found.wins, found.ties, found.losses, found.consistency) == (0, 5, 0, 0.0)


async def test_scores_are_averaged_over_the_orders_and_summed_over_questions(answers: Path) -> None:
    async with FakeJudge(scores).serving() as fake:
        (found,) = (await judged(fake, answers, mode=Mode.SCORE, repeats=2)).tallies
        assert len(fake.requests) == 20
    assert (found.scores, found.relative, found.wins) == ((90.0, 60.0), 1.5, 10)
    assert found.relative_interval == (1.5, 1.5)


async def test_what_was_paid_for_is_not_asked_again_and_its_cost_is_shown(answers: Path) -> None:
    async with FakeJudge(longer).serving() as fake:
        first = await judged(fake, answers, price_in=2.0, price_out=10.0)
        again = await judged(fake, answers, price_in=2.0, price_out=10.0)
        assert len(fake.requests) == 10
        assert first.tallies == again.tallies
        assert first.as_data()["cost"] == again.as_data()["cost"] == pytest.approx(10 * (100 * 2 + 10 * 10) / 1e6)
        assert (again.as_data()["cost_of_this_run"], again.as_data()["replies_kept"]) == (0.0, 10)
        await judged(fake, answers, temperature=0.5)  # another question to the judge
        assert len(fake.requests) == 20


async def test_a_server_that_fails_costs_no_verdict(answers: Path) -> None:
    async with FakeJudge(longer, {7: Misbehaviour(500)}).serving() as fake:
        with pytest.raises(EvaluationError) as failed:
            await judged(fake, answers)
        assert (failed.value.code, failed.value.exit_code) == ("V013", 75)
        before = kept(answers)
        assert before >= 7
        found = await judged(fake, answers)
        assert len(fake.requests) == 11  # ten verdicts and the failure
        assert (found.tallies[0].wins, kept(answers)) == (5, 10)


async def test_rate_limits_are_waited_out(answers: Path) -> None:
    limits = {n: Misbehaviour(429, {"Retry-After": "0.01"}) for n in (2, 3, 5)}
    async with FakeJudge(longer, limits).serving() as fake:
        (found,) = (await judged(fake, answers, connect)).tallies
        assert (found.wins, len(fake.requests)) == (5, 13)


async def test_replies_that_cannot_be_read_are_asked_twice_more_and_then_counted(answers: Path) -> None:
    nonsense = {n: Misbehaviour(text="I cannot decide.") for n in (0, 1, 2, 4)}
    async with FakeJudge(longer, nonsense).serving() as fake:
        (found,) = (await judged(fake, answers, at_once=1)).tallies
        assert (found.wins, found.ties, found.invalid, found.valid) == (4, 0, 1, 4)
        assert any("1 could not be read" in line for line in found.lines())
        assert len(fake.requests) == 10 + 2 + 1
        await judged(fake, answers, at_once=1)
        assert len(fake.requests) == 13  # what could not be read was paid for as well


BODIES = {"no JSON": "<html>", "another object": '{"hello": 1}', "no choices": '{"choices": []}', "a list": "[1]",
          "null": "null"}  # fmt: skip


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_that_is_no_completion_is_no_answer_and_asked_for_again(body: str, answers: Path) -> None:
    async with FakeJudge(longer, {3: Misbehaviour(body=body)}).serving() as fake:
        (found,) = (await judged(fake, answers, at_once=1)).tallies
        assert (found.wins, found.invalid, len(fake.requests), kept(answers)) == (5, 0, 11, 10)


async def test_an_address_that_never_answers_with_text_is_soon_left_alone(answers: Path) -> None:
    async with FakeJudge(longer, {n: Misbehaviour(body="{}") for n in range(50)}).serving() as fake:
        with pytest.raises(EvaluationError) as failed:
            await judged(fake, answers, at_once=1)
        assert failed.value.code == "V014"
        assert len(fake.requests) == 6
        assert not (answers.parent / "verdicts.jsonl").exists()


async def test_a_run_that_is_stopped_keeps_what_is_on_its_way(answers: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(FakeJudge):
        async def answer(self, request: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await super().answer(request)

    async with Slow(longer).serving() as fake:
        running = asyncio.create_task(judged(fake, answers, at_once=1))
        await asked.wait()
        running.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (kept(answers), len(fake.requests)) == (1, 1)


async def test_a_line_that_a_crash_cut_off_is_asked_again(answers: Path) -> None:
    async with FakeJudge(longer).serving() as fake:
        await judged(fake, answers)
        file = answers.parent / "verdicts.jsonl"
        replies = file.read_bytes().splitlines(keepends=True)[:10]
        file.write_bytes(b"".join(replies)[:-7])
        await judged(fake, answers)
        assert (len(fake.requests), kept(answers)) == (11, 10)
        VerdictFile.open(file)


async def test_a_file_of_something_else_is_left_as_it_is(answers: Path) -> None:
    (answers.parent / "verdicts.jsonl").write_text('{"schema": "other"}\n')
    async with FakeJudge(longer).serving() as fake:
        with pytest.raises(EvaluationError) as refused:
            await judged(fake, answers)
        assert (refused.value.code, fake.requests) == ("V015", [])


async def test_options_that_a_model_does_not_take_are_left_out(answers: Path) -> None:
    async with FakeJudge(longer, refuses=("temperature", "max_tokens")).serving() as fake:
        (found,) = (await judged(fake, answers, at_once=1)).tallies
        assert found.wins == 5
        assert "max_completion_tokens" in fake.requests[-1]
        assert len(fake.requests) == 12


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_key_or_model_that_is_refused_is_said_at_once(status: int, answers: Path) -> None:
    async with FakeJudge(longer, {0: Misbehaviour(status)}).serving() as fake:
        with pytest.raises(EvaluationError) as refused:
            await judged(fake, answers, connect, at_once=1)
        assert (refused.value.code, len(fake.requests)) == ("V012", 1)


async def test_a_redirect_is_not_followed(answers: Path) -> None:
    async with FakeJudge(longer, {0: Misbehaviour(307, {"Location": "http://127.0.0.1:9/v1"})}).serving() as fake:
        with pytest.raises(EvaluationError) as refused:
            await judged(fake, answers, at_once=1)
        assert (refused.value.code, len(fake.requests)) == ("V013", 1)


ADDRESSES = {
    "https://api.example.org/v1": True,
    "http://127.0.0.1:11434/v1": True,
    "http://localhost:8000/v1": True,
    "http://[::1]:8000/v1": True,
    "http://api.example.org/v1": False,
    "http://192.168.1.5:8000/v1": False,
    "http://localhost.example.org/v1": False,
    "https://user:secret@api.example.org/v1": False,
    "api.example.org": False,
}


@pytest.mark.parametrize(("url", "allowed"), ADDRESSES.items(), ids=ADDRESSES)
def test_answers_travel_encrypted_or_stay_on_this_machine(url: str, allowed: bool) -> None:
    if allowed:
        check_address(url)
        return
    with pytest.raises(EvaluationError) as refused:
        check_address(url)
    assert refused.value.code == "V010"
    assert "secret" not in f"{refused.value} {refused.value.where}"


async def refusal(answers: Path, console: Console, monkeypatch: pytest.MonkeyPatch, key: str = "") -> FeditError:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    asked = JudgeWishes("m", answers.parent / "v.jsonl", "https://judge.invalid/v1")
    with pytest.raises(FeditError) as refused:
        await run_judge(console, asked, [answers], (), "base")
    return refused.value


async def test_nothing_is_sent_elsewhere_without_a_key_and_a_yes(
    answers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await refusal(answers, Console(no_input=True), monkeypatch)).code == "V011"
    refused = await refusal(answers, Console(no_input=True), monkeypatch, "key")
    assert isinstance(refused, ConfigError)
    assert refused.again == "--yes"
    assert "questions and answers leave this machine: 10 requests" in capsys.readouterr().err
    assert Contacts(answers.parent / CONTACTS).all() == {}


async def test_a_judge_elsewhere_is_listed_among_those_that_were_contacted(
    answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    asked = JudgeWishes("m", answers.parent / "v.jsonl", "https://judge.invalid/v1", cache=answers.parent)
    await run_judge(Console(quiet=True, yes=True), asked, [answers], (), "base", InMemory)
    known = Contacts(answers.parent / CONTACTS).all()
    (host,) = [host for host in every_host(known, None, None) if host.purpose == JUDGE]
    assert (host.host, host.last_at is not None) == ("judge.invalid", True)


async def test_a_no_sends_nothing(answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class No(Console):
        def confirm(self, question: str, *, flag: str) -> bool:
            return False

    assert (await refusal(answers, No(quiet=True), monkeypatch, "key")).code == "V017"


class InMemory:
    """A judge without a server, that prefers the longer answer."""

    def __init__(self, asked: JudgeWishes) -> None:
        self.identity = {"url": asked.address, "model": asked.judge}

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        return Reply(longer(messages[-1]["content"]))

    async def close(self) -> None:
        pass


def labelled(*labels: Choice) -> list[LabelledPair]:
    return [LabelledPair(str(n), "Processed/MT-Bench", f"{n}?", ("the longer one", "short"), label, {})
            for n, label in enumerate(labels)]  # fmt: skip


async def test_a_judge_is_validated_and_labelled_from_then_on(answers: Path) -> None:
    pairs = labelled(*[Choice.FIRST] * 15, *[Choice.SECOND] * 5)
    few = "not validated: the bar is on the 200 pairs of MT-Bench, in both orders"
    here = FakeJudge(longer, url="http://127.0.0.1:1/v1")
    assert (await judged(here, answers, InMemory)).standing.startswith("not validated: fedit-client judge validate")
    found = await validate_judge(Console(quiet=True), wishes(here, answers), pairs, "Processed/MT-Bench", InMemory)
    assert (found.found.agree, found.found.consistency, found.standing) == (15, 1.0, few)
    assert any(line == "  FairEval, 66: GPT-4 73 / 70 %, ChatGPT 58 / 18 %" for line in found.lines())
    told = (await judged(here, answers, InMemory)).standing
    assert told == f"{few} (Processed/MT-Bench: agreement 75.0 %)"
    scored = await judged(here, answers, InMemory, mode=Mode.SCORE)
    assert scored.standing.startswith("not validated: fedit-client")  # with other prompts it is another judge


async def test_a_validation_asks_as_often_as_wanted(answers: Path) -> None:
    first = {n: Misbehaviour(text="[[B]]") for n in (0, 1)}  # once wrong, and once right in the other order
    async with FakeJudge(longer, first).serving() as fake:
        asked = wishes(fake, answers, repeats=3, at_once=1)
        found = await validate_judge(Console(quiet=True), asked, labelled(*[Choice.FIRST] * 2), "Mine", impatient)
        assert len(fake.requests) == 12
    assert (found.found.pairs, found.found.repeats) == (2, 3)
    assert found.found.agree == pytest.approx(2 - 1 / 6)
    assert found.lines()[0].startswith("Mine: agrees on 1.83 of 2 (91.7 %), means of 3 times")


MODELS: dict[str, tuple[Sequence[str], str]] = {
    "a model that is not there": (("absent",), "base"),
    "a baseline that is not there": ((), "absent"),
    "a model against itself": (("base",), "base"),
}


@pytest.mark.parametrize(("ours", "theirs"), MODELS.values(), ids=MODELS)
async def test_models_that_cannot_be_compared_are_refused(ours: Sequence[str], theirs: str, answers: Path) -> None:
    with pytest.raises(EvaluationError) as refused:
        await run_judge(Console(quiet=True), wishes(FakeJudge(longer), answers), [answers], ours, theirs)
    assert refused.value.code == "V016"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        '{"question_id": 1, "question": ["q", "r"], "model": "m", "answer": ["a"]}',
        '{"question_id": 1, "question": "q", "model": "m", "answer": null}',
    ],
)
async def test_what_is_no_answer_is_refused(line: str, answers: Path) -> None:
    answers.write_text(line + "\n")
    with pytest.raises(EvaluationError) as refused:
        await run_judge(Console(quiet=True), wishes(FakeJudge(longer), answers), [answers], (), "base")
    assert refused.value.code == "V016"


async def test_both_turns_of_a_conversation_are_judged_the_second_with_the_first_before_it(
    answers: Path, test_data: Path
) -> None:
    questions = [
        json.loads(line) for line in (test_data / "mt_bench80_questions.jsonl").read_text("utf-8").splitlines()
    ]
    asked = next(row for row in questions if row["category"] == "math")
    rows = [{**asked, "model": name, "answer": [f"{name} first", f"{name} second"]} for name in ("base", "tuned")]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def second_of_tuned(text: str) -> str:
        places = [text.find("tuned second"), text.find("base second")]
        return "[[C]]" if min(places) < 0 else "[[A]]" if places[0] < places[1] else "[[B]]"

    for prompts in (test_data / "fastchat_judge_prompts.jsonl", None):
        async with FakeJudge(second_of_tuned).serving() as fake:
            (found,) = (await judged(fake, answers, prompts=prompts, most=1)).tallies
            texts = [request["messages"][-1]["content"] for request in fake.requests]
        assert (found.wins, found.ties, len(texts)) == (1, 1, 4)
        both = [text for text in texts if "tuned second" in text]
        assert all(text.index("base first") < text.index("base second") for text in both)
        assert all(text.count(turn) for text in both for turn in asked["turns"])
        answers.with_name("verdicts.jsonl").unlink()


async def test_two_turns_need_a_prompt_for_two(answers: Path, test_data: Path) -> None:
    rows = [
        {"question_id": 1, "question": ["a?", "b?"], "model": name, "answer": ["1", "2"]} for name in ("base", "tuned")
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(EvaluationError) as refused:
        await judged(
            FakeJudge(scores, url="http://127.0.0.1:9/v1"),
            answers,
            prompts=test_data / "vicuna80_review_prompts.jsonl",
            mode=Mode.SCORE,
        )
    assert refused.value.code == "V021"
