"""Twelve languages, one client in three of each: losses by language, the worst of them, and weights that follow it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_client.data import Message, Record, Role
from fedit_client.hardware.device import DevicePlan
from fedit_client.simulation import Federation, Learner, VirtualClient, document_of
from fedit_protocol.domains import spread
from fedit_protocol.fairness import ROWS, SHARES
from fedit_protocol.task import Quantization, Task

pytestmark = [pytest.mark.training, pytest.mark.slow]

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
EACH = 6


def parallel_rows(file: Path) -> dict[str, list[Record]]:
    """Return the first questions of XQuAD in every language, the same ones in the same order, without their texts."""
    found: dict[str, list[Record]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            turns = Message(Role.USER, row["instruction"]), Message(Role.ASSISTANT, row["response"])
            found.setdefault(row["language"], []).append(Record(turns, row["language"]))
    return {language: rows[: 4 * EACH] for language, rows in found.items()}


def test_the_worst_language_of_a_federation_is_known_and_weighs_more(
    base: Path, tmp_path: Path, test_data: Path
) -> None:
    """Twelve clients of four languages each, so that four have every one: with one of them lying three are left."""
    rows = parallel_rows(test_data / "xquad_12lang.jsonl.gz")
    assert tuple(sorted(rows)) == LANGUAGES
    clients = []
    for place in range(12):
        group, part = (
            LANGUAGES[4 * (place % 3) : 4 * (place % 3) + 4],
            slice(EACH * (place // 3), EACH * (place // 3 + 1)),
        )
        records = [record for language in group for record in rows[language][part]]
        clients.append(VirtualClient(f"client {place}", tuple(records)))
    task = Task.model_validate({
        "id": "languages", "title": "Languages", "base": {"model": "tiny", "quantization": "fp32"},
        "adapter": {"rank": 2, "dropout": 0.0},
        "prompt": {"template": "alpaca_short", "cutoff_tokens": 384},
        "training": {"local_steps": 3, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.01,
                     "held_out_fraction": 0.0},
        "round": {"rounds": 3, "cohort_size": 12},
        "encoding": {"rows_per_weight": 4, "max_weight": 63},
        "fairness": {"domains": LANGUAGES, "rule": "afl", "step": 0.5},
    })  # fmt: skip
    learner = Learner(document_of(task, base), base, DevicePlan("cpu", 1, Quantization.FP32, "float32", "", 0, 0),
                      tmp_path / "scratch")  # fmt: skip
    found = Federation(learner.document, clients, tmp_path / "run").run(learner)
    assert found.public[ROWS].tolist() == [4 * EACH] * 12
    every = [record for language in LANGUAGES for record in rows[language]]
    before, after = (learner.measure(adapter, every) for adapter in (None, found.adapter))
    names = np.array([every[place].category for place in after.places])

    def by_language(losses: NDArray[np.float64]) -> dict[str, float]:
        return {name: float(losses[names == name].sum() / after.tokens[names == name].sum()) for name in LANGUAGES}

    first, last = spread(by_language(before.losses)), spread(by_language(after.losses))
    assert first is not None
    assert last is not None
    assert last.worst in LANGUAGES
    assert last.worst_loss < first.worst_loss
    assert 1 / 12 < last.jain <= 1
    shares = dict(zip(LANGUAGES, found.public[SHARES], strict=True))
    assert shares[max(shares, key=lambda name: shares[name])] > 1 / 12
