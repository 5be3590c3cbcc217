"""The audit of a round of FedIT: four probes in the one sum say how much of the product averaging has lost."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import Vector
from fedit_protocol.advance import advance
from fedit_protocol.methods import RoundStart
from fedit_protocol.metrics import ClientReport
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.testing import MemoryFederation, MemoryRound

from .lora_rounds import Matrix, first_sum, lora_document, lora_updates, mean_products, products, start_of


def norm(layers: list[Matrix]) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(layer))) for layer in layers)))


def true_error(start: RoundStart, adapter: Vector, updates: list[Vector]) -> float:
    """‖C‖ over the update of the product that the round made."""
    plain, before = products(start.document, adapter), products(start.document, start.adapter)
    wanted = mean_products(start.document, start.adapter, updates)
    lost = [one - other for one, other in zip(wanted, plain, strict=True)]
    return norm(lost) / norm([one - other for one, other in zip(plain, before, strict=True)])


def test_the_figure_is_within_15_percent_of_the_truth() -> None:
    document = lora_document(m=96, n=80, rank=8, layers=4, method={"audit_every": 1})
    for seed in range(10):
        start, updates = start_of(document, seed), lora_updates(document, 8, seed=seed)
        made = advance(start, first_sum(start, updates))
        assert made.figures["audit_error"] == pytest.approx(true_error(start, made.adapter, updates), rel=0.15)


@pytest.mark.parametrize(
    ("method", "statistics"),
    [({}, {}), ({"name": "ditto"}, {}), ({"name": "scaffold", "population": 8}, {"devices": 1})],
    ids=["fedavg", "ditto", "scaffold"],
)
def test_the_figure_comes_out_of_the_masked_sum_of_eight_bits(
    method: dict[str, Any], statistics: dict[str, int]
) -> None:
    method = {**method, "audit_every": 1}
    document = lora_document(m=48, n=40, rank=4, method=method, encoding={"value_range": 0.5})
    start = start_of(document)
    updates = [np.clip(each, -0.5, 0.5) for each in lora_updates(document, 8)]
    played = MemoryRound(MemoryFederation(8), document, adapter=start.adapter)
    played.run(updates, [1] * 8, [ClientReport(1, 0.0, None, statistics=statistics)] * 8)
    assert played.aggregate is not None
    made = advance(played.start, played.aggregate)
    assert made.figures["audit_error"] == pytest.approx(true_error(start, made.adapter, updates), rel=0.2)
    assert ("control_norm" in made.figures) == bool(statistics)


def test_only_every_nth_version_is_audited_and_the_others_are_plain_fedit() -> None:
    document, plain = lora_document(method={"audit_every": 3}), lora_document()
    audited = [version for version in range(7) if sum_specs(document, version)[0].ring.sketch_size]
    assert audited == [2, 5]
    start, updates = start_of(document, 0), lora_updates(document, 4)
    made = advance(start, first_sum(start, updates))
    assert not made.figures
    same = start_of(plain, 0)
    assert np.array_equal(made.adapter, advance(same, first_sum(same, updates)).adapter)
    looked = start_of(document, 2)
    assert np.array_equal(made.adapter, advance(looked, first_sum(looked, updates)).adapter)


def test_it_costs_at_most_a_fifth_more_bytes_on_layers_like_those_of_smollm2() -> None:
    """q and v of SmolLM2-135M: 576 and 192 outputs of 576 inputs, rank 8."""
    audited, plain = (lora_document(384, 576, 8, method=method) for method in ({"audit_every": 1}, {}))
    sizes = [payload_length(sum_specs(document)[0].ring) for document in (audited, plain)]
    assert sizes[0] <= 1.21 * sizes[1]


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"method": {"name": "ffa_lora", "audit_every": 2}}, "loses nothing"),
        ({"method": {"name": "fedit_rs1", "audit_every": 2}}, "it measures in every round"),
        ({"method": {"name": "nested", "audit_every": 2}, "adapter": {"ranks": (1, 3)}}, "fits none of them"),
        ({"method": {"name": "fedsa", "audit_every": 2}}, "no B is sent"),
        ({"method": {"name": "fedalt", "audit_every": 2}, "encoding": {"value_range": 1.0}}, "it sends values"),
        (
            {"method": {"name": "flora", "audit_every": 2}, "round": {"cohort_size": 8, "mode": "trusted"}},
            "of single updates",
        ),
        ({"privacy": {"noise_multiplier": 1.0}, "encoding": {"value_range": 1.0, "max_weight": 1}}, "noise"),
        ({"round": {"cohort_size": 8, "cohorts": 2}}, "cohorts = 1"),
        ({"round": {"cohort_size": 8, "mode": "trusted"}}, "mode = masked"),
    ],
)
def test_an_audit_that_cannot_be_is_refused_with_the_reason(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        lora_document(**{"method": {"audit_every": 2}, **sections})
