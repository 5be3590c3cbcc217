"""Twelve languages that say the same: parallel questions, dealt by language; the same ones are held out in each."""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_client.data import Record
from fedit_client.partition import Corpus, corpus_of, make_partition
from fedit_protocol.errors import DataError

from .data import MANY_OF, SEED, Deal, Places, many_of, no_partition

FILE: Final = "xquad_12lang.jsonl.gz"

_HELD_OUT: Final = 10
"""Questions, each in all languages."""
_BESIDE: Final = 30
"""Characters of the context that are kept on each side of the answer: some scripts take several tokens for each."""


class Languages:
    """The data set and its test rows. The category of a row is its language."""

    def __init__(self, place: Path) -> None:
        """Read it once; raises DataError F024 where the file is not there."""
        file = place / FILE
        if not file.is_file():
            raise DataError(
                f"{FILE} is not there", code="F024", where=str(place), fix="name the folder that holds it with --data"
            )
        self.corpus: Corpus = corpus_of(_rows(file), ("language", "id"))
        part = make_partition(self.corpus, "iid", 1, SEED, _HELD_OUT, test_by="language", together="id")
        self.held = {"languages": part.test.tolist()}

    def deal(self, partition: str) -> Deal:
        """Return the rows of a partition; the test rows are the same for each.

        It is `CLIENTS of FORM`, or `CLIENTS of FORM + CLIENTS of ROWS LANGUAGE`: a language that only the last ones
        have, and so many rows of it each. Raises ConfigError F027, DataError where the rows cannot be dealt so.
        """
        many, plus, few = partition.partition(" + ")
        clients, form = many_of(many)
        if plus:
            dealt = self._with_a_rare_one(clients, form, few)
        else:
            part = make_partition(self.corpus, form, clients, SEED, _HELD_OUT, test_by="language", together="id")
            dealt = [client.rows for client in part.clients]
        return Deal(tuple(dealt), np.array(self.held["languages"]), np.zeros(0, np.int64))

    def _with_a_rare_one(self, clients: int, form: str, rare_ones: str) -> list[Places]:
        labels, test = self.corpus.labels("language"), self.held["languages"]
        found = re.fullmatch(r"([1-9]\d*) of ([1-9]\d*) (\S+)", rare_ones)
        if found is None or found[3] not in labels.names:
            known = f"{MANY_OF} + CLIENTS of ROWS LANGUAGE, of {', '.join(labels.names)}"
            raise no_partition(f"{clients} of {form} + {rare_ones}", known)
        few, rows, language = found.groups()
        rare = labels.codes == labels.names.index(language)
        others = np.flatnonzero(~rare)
        with corpus_of(map(json.loads, self.corpus.lines(others)), ("language",)) as corpus:
            part = make_partition(corpus, form, clients, SEED)
        order = np.random.default_rng(SEED).permutation(np.setdiff1d(np.flatnonzero(rare), test))
        parts = np.split(order[: int(few) * int(rows)], int(few))
        return [np.setdiff1d(others[client.rows], test) for client in part.clients] + parts

    def records(self, rows: Sequence[int]) -> tuple[Record, ...]:
        """Return rows as records."""
        return self.corpus.records(rows)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield {**row, "context": around(row["context"], row["response"]), "category": row["language"]}


def around(context: str, answer: str) -> str:
    """Return the part of a context around its answer's first place, or its beginning where the answer is not in it."""
    at = max(0, context.find(answer))
    return context[max(0, at - _BESIDE) : at + len(answer) + _BESIDE]
