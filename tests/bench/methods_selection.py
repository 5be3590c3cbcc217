"""What rounds of 4 of 10 clients cover of Dolly's categories: drawn at random, by what devices declare, and at best.

Needs Dolly (`FEDIT_TEST_DATA`); without it the figures are missing.
"""

import itertools
import os
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np

from fedit_client.data import Source
from fedit_client.partition import Corpus, client_table, coverage, make_partition, measured_labels, read_corpus
from fedit_protocol.selection import Declared, domains_of, round_seed, stratified, uniform

FORMS: Final = ("shards:2", "dirichlet:0.5:min=10", "dirichlet:0.1:min=10")
_CLIENTS: Final = 10
_TAKEN: Final = 4
_SEEDS: Final = 20
_ROUNDS: Final = 10
_SHARE: Final = 0.05


def figures(folder: Path) -> dict[str, Any]:
    """Return `coverage`: form → the mean over 20 partitions, of ten rounds each."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    rows = Path(os.environ.get("FEDIT_TEST_DATA") or beside) / "dolly15k.jsonl"
    if not rows.is_file():
        return {"coverage": None}
    with read_corpus(Source(str(rows))) as corpus:
        return {"coverage": {form: _covered(corpus, form) for form in FORMS}}


def _covered(corpus: Corpus, form: str) -> dict[str, float]:
    found: dict[str, list[float]] = {"random": [], "stratified": [], "best": []}
    for seed in range(_SEEDS):
        part = make_partition(corpus, form, _CLIENTS, seed, 10)
        table = client_table(measured_labels(corpus, part), part)
        names = [str(place) for place in range(table.shape[1])]
        declared = {str(client): Declared(domains_of(_rows(names, table[client]), names)) for client in range(_CLIENTS)}
        served = Counter[str]()
        for number in range(_ROUNDS):
            drawn = stratified(declared, served, _TAKEN, round_seed(b"bench", number))
            served.update(name for client in drawn for name in declared[client].domains)
            found["stratified"].append(coverage(table, [int(client) for client in drawn], _SHARE))
            anybody = uniform(declared, _TAKEN, round_seed(b"bench", number))
            found["random"].append(coverage(table, [int(client) for client in anybody], _SHARE))
        choices = itertools.combinations(range(_CLIENTS), _TAKEN)
        found["best"].append(max(coverage(table, choice, _SHARE) for choice in choices))
    return {rule: round(fmean(values), 3) for rule, values in found.items()}


def _rows(names: list[str], counts: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, int]:
    return dict(zip(names, map(int, counts), strict=True))
