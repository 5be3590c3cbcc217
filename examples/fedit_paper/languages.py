"""Twelve languages that say the same: parallel questions, dealt by language; the same ones are held out in each."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_client.data import Record
from fedit_client.partition import Corpus, corpus_of, make_partition
from fedit_protocol.errors import DataError

from .data import SEED, Deal

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
        """Return the rows of a partition, `CLIENTS of FORM`; the test rows are the same for each."""
        clients, _, form = partition.partition(" of ")
        part = make_partition(self.corpus, form, int(clients), SEED, _HELD_OUT, test_by="language", together="id")
        return Deal(tuple(client.rows for client in part.clients), part.test, np.zeros(0, np.int64))

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
