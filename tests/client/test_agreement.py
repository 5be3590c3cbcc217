"""Agreement of judges with people: by hand on small cases, and exactly as published on the recorded verdicts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.judging.agreement import Agreement, Choice, Labelled, agreement, cohens_kappa, standing
from fedit_client.judging.labels import by_judge, read_pairs
from fedit_protocol.errors import EvaluationError

ONE, TWO, TIE = Choice.FIRST, Choice.SECOND, Choice.TIE


def test_both_orders_count_by_half_and_ties_and_gaps_do_not_agree() -> None:
    found = agreement([
        Labelled(ONE, (ONE, ONE)), Labelled(ONE, (ONE, TWO)), Labelled(TWO, (TIE, TWO)), Labelled(TWO, (None, TWO)),
        Labelled(TWO, (None, None)),
    ])  # fmt: skip
    assert (found.pairs, found.agree, found.ties, found.invalid) == (5, 2.5, 0.5, 1.5)
    assert (found.consistent, found.missing) == (2, 1)
    assert (found.share, found.decided, found.consistency) == (0.5, 3.0, 0.4)


def test_repeats_are_averaged_and_make_no_more_pairs() -> None:
    twice = [
        Labelled(ONE, (ONE, ONE)),
        Labelled(ONE, (ONE, TWO)),
        Labelled(TWO, (None, None)),
        Labelled(TWO, (TIE, TWO)),
    ]
    found = agreement(twice, repeats=2)
    assert (found.pairs, found.agree, found.ties, found.invalid) == (2, 1.0, 0.25, 0.5)
    assert (found.consistent, found.missing, found.share, found.consistency) == (1.0, 0.5, 0.5, 0.5)
    assert standing(agreement([Labelled(ONE, (ONE, ONE))] * 200, repeats=2), "Processed/MT-Bench").startswith("not")
    assert standing(agreement([Labelled(ONE, (ONE, ONE))] * 400, repeats=2), "Processed/MT-Bench") == "validated"


def test_kappa_is_agreement_beyond_chance() -> None:
    # Cohen's own kind of table: 20 and 15 on the diagonal, 5 and 10 beside it: observed 0.7, expected 0.5.
    pairs = [("1", "1")] * 20 + [("1", "2")] * 5 + [("2", "1")] * 10 + [("2", "2")] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([("1", "1")] * 3) is None
    assert cohens_kappa([]) is None


def test_pairs_in_one_and_in_two_orders_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="one order"):
        agreement([Labelled(ONE, (ONE,)), Labelled(ONE, (ONE, ONE))])


STANDINGS = {
    "validated": (200, 130.0, 140, "Processed/MT-Bench", True),
    "too little agreement": (200, 129.5, 140, "Processed/MT-Bench", False),
    "too little consistency": (200, 130.0, 139, "Processed/MT-Bench", False),
    "too few pairs": (199, 180.0, 190, "Processed/MT-Bench", False),
    "another set": (200, 180.0, 190, "Processed/FairEval", False),
}


@pytest.mark.parametrize(("pairs", "agree", "consistent", "name", "passed"), STANDINGS.values(), ids=STANDINGS)
def test_a_judge_below_the_bar_is_labelled(pairs: int, agree: float, consistent: int, name: str, passed: bool) -> None:
    told = standing(Agreement(pairs, 2, agree, 0, 0, consistent + 3, 3, 0.5), name)
    assert (told == "validated") is passed
    assert passed or told.startswith("not validated: ")


BAD = {
    "no JSON": "{",
    "no label": '{"input": "a"}',
    "a strange label": '{"input":"a","output_1":"b","output_2":"c","label":7}',
    "three orders": '{"input":"a","output_1":"b","output_2":"c","label":1,"judges":{"J":["1","1","1"]}}',
    "nothing": "",
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_what_nobody_has_judged_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(line + "\n")
    with pytest.raises(EvaluationError) as refused:
        read_pairs(tmp_path / "pairs.jsonl")
    assert refused.value.code == "V020"
    for name in ("input", "output_1", "output_2", "label", "question", "answer_1", "answer_2", "human_label"):
        assert re.search(rf"\b{name}\b", refused.value.fix or ""), name


def recorded(file: Path) -> dict[tuple[str, str], Agreement]:
    """The agreement of every judge in a file of the public records."""
    return {key: agreement(labelled) for key, labelled in by_judge(read_pairs(file)).items()}


def test_the_scores_of_gpt_4_agree_with_people_as_fair_eval_has_published(test_data: Path) -> None:
    (((_, judge), found),) = recorded(test_data / "faireval_vicuna_human_vs_gpt4.jsonl").items()
    assert judge == "gpt4"
    assert (found.agree, found.pairs, found.ties, found.decided) == (38, 66, 18, 48)
    assert found.consistency is None


# (subset, judge) → pairs, agree, percent, percent with the same verdict in both orders
PUBLISHED: dict[tuple[str, str], tuple[int, float, float, float]] = {
    ("Processed/MT-Bench", "GPT-4/Vanilla_NoRules"): (200, 162, 81.0, 87.0),
    ("Processed/MT-Bench", "ChatGPT/Vanilla_NoRules"): (200, 142.5, 71.25, 57.5),
    ("Processed/LLMEval^2", "GPT-4/Vanilla_NoRules"): (200, 151, 75.5, 87.5),
    ("Processed/LLMEval^2", "ChatGPT/Vanilla_NoRules"): (200, 140.5, 70.25, 72.0),
    ("Processed/FairEval", "GPT-4/Vanilla_NoRules"): (66, 48, 72.73, 69.70),
    ("Processed/FairEval", "ChatGPT/Vanilla_NoRules"): (66, 38, 57.58, 18.18),
    ("LLMBar/Natural", "GPT-4/Vanilla"): (100, 95.5, 95.5, 95.0),
    ("LLMBar/Natural", "ChatGPT/Vanilla"): (100, 81.5, 81.5, 71.0),
    ("LLMBar/Natural", "GPT-4/Vanilla_NoRules"): (100, 93.5, 93.5, 97.0),
    ("LLMBar/Natural", "ChatGPT/Vanilla_NoRules"): (100, 79, 79.0, 68.0),
    ("LLMBar/Adversarial", "GPT-4/Vanilla_NoRules"): (319, 227, 71.16, 89.34),
    ("LLMBar/Adversarial", "ChatGPT/Vanilla_NoRules"): (319, 88.5, 27.74, 58.93),
}


def test_recorded_verdicts_agree_with_people_as_llmbar_has_published(test_data: Path) -> None:
    found = recorded(test_data / "llmbar_1200_preferences.jsonl")
    counted = {
        key: (found[key].pairs, found[key].agree, round(100 * found[key].share, 2),
              round(100 * (found[key].consistency or 0), 2))
        for key in PUBLISHED
    }  # fmt: skip
    assert counted == PUBLISHED
    assert standing(found["Processed/MT-Bench", "GPT-4/Vanilla_NoRules"], "Processed/MT-Bench") == "validated"
    told = standing(found["Processed/MT-Bench", "ChatGPT/Vanilla_NoRules"], "Processed/MT-Bench")
    assert told.startswith("not validated: agreement 71.2 %")


def test_the_command_counts_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {"input": "q", "output_1": "a", "output_2": "b", "label": 1, "subset": "Mine/One/x"}
    rows = [{**row, "judges": {"J": ["1", "1"], "K": ["2", None]}}, {**row, "label": 2, "judges": {"J": ["1", "2"]}}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert invoke(["judge", "agreement", str(tmp_path / "pairs.jsonl")]) == 0
    nothing = "same verdict in both orders 0.0 %; kappa 0.000"
    assert capsys.readouterr().out.splitlines() == [
        "Mine/One · J: agrees on 1.5 of 2 (75.0 %); same verdict in both orders 50.0 %; kappa 0.500",
        f"Mine/One · K: agrees on 0 of 1 (0.0 %), 0.5 without a verdict, 0 of 0.5 decided; {nothing}",
    ]
    assert invoke(["--json", "judge", "agreement", str(tmp_path / "pairs.jsonl"), "--judge", "K"]) == 0
    assert len(json.loads(capsys.readouterr().out)["data"]["agreements"]) == 1
    assert invoke(["judge", "agreement", str(tmp_path / "pairs.jsonl"), "--subset", "Other"]) == 13
