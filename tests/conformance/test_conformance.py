"""Our own implementation conforms, and the runner notices one that does not."""

import shlex
import sys
from pathlib import Path

from .__main__ import OURS, check_vectors
from .ours import ANSWERS
from .questions import questions

LIAR = """
import json, sys
from tests.conformance.ours import ANSWERS
for line in sys.stdin:
    asked = json.loads(line)
    answer = ANSWERS[asked["do"]](asked)
    if asked["do"] == "mask":
        answer["bytes"] = "00" + answer["bytes"][2:]
    print(json.dumps(answer))
"""


def test_our_implementation_answers_every_vector_rightly() -> None:
    assert check_vectors(OURS, list(questions())) == []


def test_every_answer_is_asked_for() -> None:
    assert {question.asked["do"] for question in questions()} == ANSWERS.keys()


def test_a_wrong_answer_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "liar.py").write_text(LIAR, "utf-8")
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / 'liar.py'))}"
    asked = [question for question in questions() if question.asked["do"] in ("mask", "split")]
    wrong = check_vectors(command, asked)
    assert {failure.partition(":")[0] for failure in wrong} <= {"mask", "the answerer ended with 1"}
    assert any(failure.startswith("mask") for failure in wrong)


def test_an_answerer_that_says_nothing_fails_everything() -> None:
    asked = list(questions())
    assert len(check_vectors("true", asked)) == len(asked)
