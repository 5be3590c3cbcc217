"""Files of pairs of answers that people have judged, with recorded verdicts of judges beside the labels."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedit_client.home.durable import translating
from fedit_client.judging.agreement import Choice, Labelled
from fedit_protocol.errors import EvaluationError

_SCORES: Final = "_scores"
_SHAPES: Final = (
    "give JSON lines with input, output_1, output_2, label (1, 2 or tie) and perhaps judges {NAME: [verdict, verdict]}"
    "\ngive JSON lines with question, answer_1, answer_2, human_label (1, 2 or tie) and perhaps NAME_scores "
    "[score, score]"
)
"""All that is read, for people: as LLMBar's records, as FairEval's."""


@dataclass(frozen=True)
class LabelledPair:
    """Two answers to one question, what people prefer, and what judges said: a name → one verdict for each order.

    Verdicts are in the file's order of the answers, whichever was shown first.
    """

    name: str
    subset: str
    question: str = field(repr=False)
    answers: tuple[str, str] = field(repr=False)
    label: Choice
    judges: Mapping[str, tuple[Choice | None, ...]]


def read_pairs(path: Path) -> list[LabelledPair]:
    """Return the pairs of a file of JSON lines; raises EvaluationError V020, StorageError.

    Two shapes are known: `label`, `judges` {name: [verdict, verdict]}, `input`, `output_1`, `output_2`, `subset` as in
    the records of LLMBar; and `human_label`, `NAME_scores` [score, score], `question`, `answer_1`, `answer_2` as in
    those of FairEval.
    """
    found = []
    for number, row in _rows(path):
        try:
            found.append(_pair(row, path, number))
        except (KeyError, TypeError, ValueError) as error:
            raise _no_pair(path, number) from error
    if not found:
        raise _no_pair(path, 1)
    return found


def by_judge(pairs: list[LabelledPair]) -> dict[tuple[str, str], list[Labelled]]:
    """Return the labels and verdicts by (subset, judge); a subset is named by the first two words of its path.

    Raises EvaluationError V020 for a judge with one order here and two there.
    """
    found: dict[tuple[str, str], list[Labelled]] = {}
    for pair in pairs:
        for judge, verdicts in pair.judges.items():
            found.setdefault((subset_of(pair), judge), []).append(Labelled(pair.label, verdicts))
    for (_, judge), labelled in found.items():
        if len({len(one.verdicts) for one in labelled}) > 1:
            raise EvaluationError(f"{judge} has verdicts in one order on some pairs and in two on others", code="V020",
                                  fix="give one file for each number of orders")  # fmt: skip
    return found


def subset_of(pair: LabelledPair) -> str:
    """Return the part of a data set that a pair counts in: `LLMBar/Adversarial/Manual` counts in its second word."""
    return "/".join(pair.subset.split("/")[:2])


def _pair(row: dict[str, Any], path: Path, number: int) -> LabelledPair:
    if "human_label" in row:
        judges: dict[str, tuple[Choice | None, ...]] = {
            name.removesuffix(_SCORES): (_preferred(*scores),) for name, scores in row.items() if name.endswith(_SCORES)
        }
        return LabelledPair(str(row.get("question_id", number)), path.stem, row["question"],
                            (row["answer_1"], row["answer_2"]), _choice(row["human_label"]), judges)  # fmt: skip
    judges = {name: tuple(_verdict(one) for one in verdicts) for name, verdicts in row.get("judges", {}).items()}
    if not {len(verdicts) for verdicts in judges.values()} <= {1, 2}:
        raise ValueError("a judge with no verdict or with more than two orders")
    return LabelledPair(str(row.get("idx", number)), row.get("subset", path.stem), row["input"],
                        (row["output_1"], row["output_2"]), _choice(row["label"]), judges)  # fmt: skip


def _choice(value: object) -> Choice:
    return Choice.TIE if str(value) in {"0", "tie"} else Choice(str(value))


def _verdict(value: object) -> Choice | None:
    return None if value is None else _choice(value)


def _preferred(first: float, second: float) -> Choice:
    return Choice.TIE if first == second else Choice.FIRST if first > second else Choice.SECOND


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with translating(path):
        text = path.read_text("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise _no_pair(path, number) from error


def _no_pair(path: Path, number: int) -> EvaluationError:
    return EvaluationError("this is no pair of answers that people have judged", code="V020",
                           where=f"{path}, line {number}",
                           fix=_SHAPES)  # fmt: skip
