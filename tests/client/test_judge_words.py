"""What a judge is asked, in our words or in published ones, and what is read out of its replies."""

import json
from pathlib import Path

import pytest

from fedit_client.judging.agreement import Choice
from fedit_client.judging.prompts import OWN, Mode, chosen, read_prompts
from fedit_client.judging.verdicts import parse_choice, parse_scores
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


def test_a_template_with_fields_of_its_own_is_no_prompt(tmp_path: Path) -> None:
    row = {"name": "x", "type": "pairwise", "system_prompt": "", "prompt_template": "{answer_a.__class__} {answer_b}"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row))
    with pytest.raises(EvaluationError) as refused:
        read_prompts(tmp_path / "prompts.jsonl", Mode.PAIRWISE)
    assert refused.value.code == "V021"
