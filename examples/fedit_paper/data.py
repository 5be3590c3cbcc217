"""The rows: Dolly in the paper's partitions, 200 test rows that no client has, validation rows, and other data sets."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_client.data import Record, Source, records_from
from fedit_client.partition import Corpus, hold_out_more, load_partition, make_partition, parse_form, read_corpus
from fedit_protocol.errors import ConfigError, DataError

ROOT: Final = Path(__file__).resolve().parents[2]
DOLLY: Final = "dolly15k.jsonl"
PUBLISHED: Final = {
    "shards": "dolly15k.split10_shards.json",
    "dirichlet": "dolly15k.split10_dirichlet.json",
    "stratified": "dolly15k.split10_stratified.json",
}
"""Partitions of ten clients as others published them, with the same 80 test rows."""

OTHERS: Final = ("self_instruct", "aya")
"""Data sets that models are measured on and that nobody trains on."""

Places = NDArray[np.int64]

SEED: Final = 42
"""Of every partition and every choice of rows that is not a run's own."""
MANY_OF: Final = "CLIENTS of FORM"
"""How a partition that nobody published is written."""
_MORE_TEST: Final = 15
_VALIDATION: Final = 10


@dataclass(frozen=True)
class Deal:
    """Who has which rows of Dolly, as row numbers: every client's, the test rows, and validation rows for tuning."""

    clients: tuple[Places, ...] = field(repr=False)
    test: Places = field(repr=False)
    validation: Places = field(repr=False)


def folder(named: str) -> Path:
    """Return where the data lie: what was named, else FEDIT_TEST_DATA, else shared/data beside the project; F024."""
    place = Path(named or os.environ.get("FEDIT_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (place / DOLLY).is_file():
        raise DataError(
            f"{DOLLY} is not there",
            code="F024",
            where=str(place),
            fix="name the folder that holds it with --data, or in FEDIT_TEST_DATA",
        )
    return place


def no_partition(partition: str, known: str) -> ConfigError:
    """Return the error F027 of a partition that there is not; `known` are those that there are."""
    return ConfigError(
        f"there is no partition {partition!r}: there are {known}",
        code="F027",
        where="--partition, or partition in a row's task file",
        fix="--partition shards, or --partition '100 of shards:2'",
    )


def many_of(partition: str) -> tuple[int, str]:
    """Return the clients and the form of `CLIENTS of FORM`; raises ConfigError F027, DataError D040 for no form."""
    found = re.fullmatch(r"([1-9]\d*) of (.+)", partition)
    if found is None:
        raise no_partition(partition, f"{', '.join(PUBLISHED)}, and {MANY_OF}, as in 100 of shards:2")
    return int(found[1]), parse_form(found[2]).text


class Dolly:
    """The data set with its test and validation rows, which are the same for every partition."""

    def __init__(self, place: Path) -> None:
        """Read it once; raises DataError."""
        self._place = place
        self.corpus: Corpus = read_corpus(Source(str(place / DOLLY)))
        published = load_partition(place / PUBLISHED["shards"], self.corpus)
        with_test = hold_out_more(self.corpus, published, per_category=_MORE_TEST, seed=SEED)
        with_both = hold_out_more(self.corpus, with_test, per_category=_VALIDATION, seed=SEED + 1)
        self.test: Places = with_test.test
        self.validation: Places = np.setdiff1d(with_both.test, with_test.test)
        self.held = {"test": self.test.tolist(), "validation": self.validation.tolist()}
        self._taken: Places = with_both.test

    def deal(self, partition: str) -> Deal:
        """Return the rows of a partition: a published one's name, or `CLIENTS of FORM` such as `100 of shards:2`.

        Raises ConfigError F027 for what is neither, DataError where the rows cannot be dealt so.
        """
        if partition in PUBLISHED:
            part = load_partition(self._place / PUBLISHED[partition], self.corpus)
        else:
            clients, form = many_of(partition)
            part = make_partition(self.corpus, form, clients=clients, seed=SEED, test_rows=0)
        kept = tuple(np.setdiff1d(client.rows, self._taken) for client in part.clients)
        return Deal(kept, self.test, self.validation)

    def records(self, rows: Sequence[int]) -> tuple[Record, ...]:
        """Return rows as records."""
        return self.corpus.records(rows)


def apart(rows: Places, count: int, client: str) -> tuple[Places, Places]:
    """Return the rows that a client trains on, and `count` others, at most half of all: the same in every run."""
    order = np.random.default_rng([SEED, *client.encode()]).permutation(rows)
    taken = min(count, len(rows) // 2)
    return np.sort(order[taken:]), np.sort(order[:taken])


def other_records(place: Path, name: str) -> tuple[Record, ...]:
    """Return the rows of another data set, its language or nothing as their category."""
    rows = {"self_instruct": _self_instruct, "aya": _aya}[name](place)
    return records_from(list(rows)).records


def _self_instruct(place: Path) -> Iterator[dict[str, Any]]:
    for row in _lines(place / "self_instruct_seed_tasks_175.jsonl"):
        first = row["instances"][0]
        yield _dolly(row["instruction"], first["input"], first["output"], "self-instruct")


def _aya(place: Path) -> Iterator[dict[str, Any]]:
    for row in _lines(place / "aya_eval_8lang.jsonl"):
        yield _dolly(row["instruction"], "", row["response"], row["language"])


def _dolly(instruction: str, context: str, response: str, category: str) -> dict[str, Any]:
    return {"instruction": instruction, "context": context, "response": response, "category": category}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
