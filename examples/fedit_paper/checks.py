"""The paper's checks that train nothing: what the partitions are like, and how far judges agree with people."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fedit_client.judging.agreement import agreement
from fedit_client.judging.labels import by_judge, read_pairs
from fedit_client.partition import Corpus, load_partition, meters
from fedit_client.partition.meters import client_table

from .data import PUBLISHED

JUDGED: Final = ("faireval_vicuna_human_vs_gpt4.jsonl", "llmbar_1200_preferences.jsonl")
"""Pairs of answers with labels of people and recorded verdicts of judges."""
_PLAIN: Final = "/Vanilla_NoRules"
"""How LLMBar calls a judge that gets question, answers and nothing else; the published figures are of those."""
_NAMED: Final = ("mean_tv", "size_cv", "size_gini")


def partition_found(corpus: Corpus, place: Path) -> dict[str, Any]:
    """Return the rows of every category at every client of the published partitions, and how unlike the clients are."""
    names = list(corpus.labels().names)
    found: dict[str, Any] = {}
    for name, file in PUBLISHED.items():
        partition = load_partition(place / file, corpus)
        table, measured = client_table(corpus.labels(), partition), meters(corpus, partition).as_data()
        found[name] = {"table": table.tolist(), **{key: measured[key] for key in _NAMED}}
    return {"categories": names, "partitions": found}


def judge_found(_: Corpus, place: Path) -> dict[str, Any]:
    """Return how far the recorded judges agree with people, set by set: those that were asked plainly."""
    pairs = [pair for file in JUDGED for pair in read_pairs(place / file)]
    judged = {
        f"{subset} · {judge.removesuffix(_PLAIN)}": agreement(found).as_data()
        for (subset, judge), found in by_judge(pairs).items()
        if "/" not in judge or judge.endswith(_PLAIN)
    }
    return dict(sorted(judged.items()))


CHECKS: Final[Mapping[str, Callable[[Corpus, Path], dict[str, Any]]]] = {
    "check_partition": partition_found,
    "check_judge": judge_found,
}
"""Row → what it finds in the data."""
