"""What a judge is asked, in our words or in published ones, and what is read out of its replies."""

import json
from pathlib import Path

import pytest

from fedit_client.judging.agreement import Choice
from fedit_client.judging.prompts import OWN, Mode, Turn, chosen, read_prompts
from fedit_client.judging.verdicts import parse_choice, parse_rating, parse_scores
from fedit_protocol.errors import EvaluationError

SCORES = {
    "8 6": (8.0, 6.0),
    "\n\n9.5, 10\nreasons 1 2": (9.5, 10.0),
    "Scores: 7 and 3": (7.0, 3.0),
    "8": None,
    "8 6 1": None,
    "0 5": (0.0, 5.0),
    "I solve it first: 2 + 3.\n\n10, 4\nThe first is right.": (10.0, 4.0),
    "I solve it first: 2 + 3.\n4 5 6": None,
    "11 5": None,
    "eight six": None,
    "": None,
}


@pytest.mark.parametrize(("reply", "found"), SCORES.items())
def test_two_scores_stand_on_a_line_of_their_own(reply: str, found: tuple[float, float] | None) -> None:
    assert parse_scores(reply) == found


def test_no_recorded_review_of_gpt_4_is_read_wrongly(test_data: Path) -> None:
    lines = (test_data / "vicuna80_gpt4_reviews.jsonl").read_text("utf-8").splitlines()
    reviews = [json.loads(line) for line in lines]
    read = [(parse_scores(review["gpt4_review"]), tuple(review["gpt4_scores"])) for review in reviews]
    # 39 say their scores in a sentence at the end; people have written those down by hand.
    assert (sum(found == scores for found, scores in read), sum(found is None for found, _ in read)) == (1001, 39)


CHOICES = {"[[A]]": Choice.FIRST, "not [[A]] but\n[[B]]": Choice.SECOND, "[[C]]": Choice.TIE, "[[D]]": None, "A": None}


@pytest.mark.parametrize(("reply", "found"), CHOICES.items())
def test_the_last_verdict_counts(reply: str, found: Choice | None) -> None:
    assert parse_choice(reply) == found


RATINGS = {
    "Rating: [[7]]": 7.0,
    "[[7.5]]": 7.5,
    "The answer claims [[10]] for itself.\nRating: [[2]]": 2.0,
    "[[10]]": 10.0,
    "[[0]]": None,
    "[[11]]": None,
    "[[rating]]": None,
    "[[-3]]": None,
    "[7]": None,
    "I give it a 7.": None,
    "": None,
}


@pytest.mark.parametrize(("reply", "found"), RATINGS.items())
def test_the_last_rating_from_1_to_10_counts(reply: str, found: float | None) -> None:
    assert parse_rating(reply) == found


def test_our_prompts_show_both_answers_and_no_braces_are_filled_in() -> None:
    for prompt in OWN.values():
        text = prompt.messages("Q {question}?", "one {answer_2}", "two")[1]["content"]
        assert text.index("one {answer_2}") < text.index("two")
        assert "Q {question}?" in text


def test_published_prompts_are_read(test_data: Path) -> None:
    fastchat = read_prompts(test_data / "fastchat_judge_prompts.jsonl", Mode.PAIRWISE)
    assert [(prompt.name, prompt.turns) for prompt in fastchat] == [
        ("pair-v2", 1), ("pair-v2-multi-turn", 2), ("pair-math-v1", 1), ("pair-math-v1-multi-turn", 2)
    ]  # fmt: skip
    assert chosen(fastchat, "writing", has_reference=False, turn=2).name == "pair-v2-multi-turn"
    assert chosen(fastchat, "math", has_reference=True, turn=2).name == "pair-math-v1-multi-turn"
    assert chosen(fastchat, "writing", has_reference=True).name == "pair-v2"
    assert chosen(fastchat, "math", has_reference=True).name == "pair-math-v1"
    assert chosen(fastchat, "math", has_reference=False).name == "pair-v2"
    asked = chosen(fastchat, "math", has_reference=True).messages("1+1?", "2", "3", "two")
    assert "two" in asked[1]["content"]
    vicuna = read_prompts(test_data / "vicuna80_review_prompts.jsonl", Mode.SCORE)
    assert {name: chosen(vicuna, name, has_reference=False).category for name in ("coding", "math", "fermi")} == {
        "coding": "coding", "math": "math", "fermi": "general"
    }  # fmt: skip
    assert "Please first output a single line" in vicuna[0].messages("q", "a", "b")[1]["content"]
    with pytest.raises(EvaluationError) as refused:
        read_prompts(test_data / "vicuna80_review_prompts.jsonl", Mode.PAIRWISE)
    assert refused.value.code == "V021"


def test_published_prompts_for_single_answers_are_read(test_data: Path) -> None:
    found = read_prompts(test_data / "fastchat_judge_prompts.jsonl", Mode.SCORE)
    assert [(prompt.name, prompt.turns, prompt.single) for prompt in found] == [
        ("single-v1", 1, True), ("single-math-v1", 1, True), ("single-v1-multi-turn", 2, True),
        ("single-math-v1-multi-turn", 2, True),
    ]  # fmt: skip
    names = [chosen(found, *asked, has_reference=given, turn=turn).name for asked, given, turn in (
        (("writing",), True, 1), (("math",), True, 1), (("writing",), False, 2), (("coding",), True, 2),
    )]  # fmt: skip
    assert names == ["single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"]
    before = Turn("First?", "one", "one", "ref one")
    text = found[3].messages("Second?", "two", "two", "ref two", before)[1]["content"]
    shown = ["First?", "ref one", "Second?", "ref two", "First?", "one", "Second?", "two"]
    places = [0]
    for part in shown:
        places.append(text.index(part, places[-1] + 1))
    assert text.count("First?") == 2


def test_prompts_that_show_two_answers_go_before_those_that_grade_one(tmp_path: Path) -> None:
    rows = [{"name": "one", "type": "single", "system_prompt": "", "prompt_template": "{question} {answer}"},
            {"name": "two", "system_prompt": "", "prompt_template": "{question} {answer_1} {answer_2}"}]  # fmt: skip
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [prompt.name for prompt in read_prompts(tmp_path / "prompts.jsonl", Mode.SCORE)] == ["two"]


NO_PROMPTS = {
    "fields of its own": ("pairwise", "{answer_a.__class__} {answer_b}"),
    "one answer for a choice": ("pairwise", "{question} {answer}"),
    "fields of its own beside one answer": ("single", "{question} {answer} {answer.__class__}"),
    "no answer": ("single", "{question}"),
    "no field": ("single", "Which is better?"),
}


@pytest.mark.parametrize(("kind", "template"), NO_PROMPTS.values(), ids=NO_PROMPTS)
def test_a_template_that_does_not_show_answers_alone_is_no_prompt(kind: str, template: str, tmp_path: Path) -> None:
    row = {"name": "x", "type": kind, "system_prompt": "", "prompt_template": template}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row))
    with pytest.raises(EvaluationError) as refused:
        read_prompts(tmp_path / "prompts.jsonl", Mode.PAIRWISE if kind == "pairwise" else Mode.SCORE)
    assert refused.value.code == "V021"
