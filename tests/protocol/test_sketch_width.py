"""How wide a sketch is: it follows what the last one has left, within what the task allows and both sides know."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.advance import Advance, advance
from fedit_protocol.errors import ProblemType
from fedit_protocol.limits import check_offer_matches
from fedit_protocol.methods.contract import State
from fedit_protocol.methods.sketch_width import COLUMNS, columns_of, next_columns, widths
from fedit_protocol.round_plan import allowed_sums, sum_specs
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound

from .lora_rounds import first_sum, lora_document, lora_updates, start_of
from .rounds import refused
from .test_side_delta import played


def document_of(name: str = "fedit_rs1", sketch_rank: int = 3, cohort_min: int = 9, **tables: Any) -> TaskDocument:
    method = {"name": name, "sketch_rank": sketch_rank, "sketch_adapts": True}
    return lora_document(
        m=30, n=26, method=method, round={"cohort_min": cohort_min, "cohort_size": 12, "min_survivors": 8}, **tables
    )


def wide(columns: int) -> State:
    return {COLUMNS: np.array([columns], np.float32)}


def of_four_kinds(document: TaskDocument) -> list[Vector]:
    kinds = lora_updates(document, 4)
    return [kinds[number % 4] for number in range(9)]


def test_it_doubles_above_two_percent_and_halves_below_half_a_percent() -> None:
    document = document_of()
    assert widths(document) == (3, 6, 12, 1)
    for left, after in ((0.03, 12), (0.02, 6), (0.01, 6), (0.004, 3), (None, 6)):
        assert columns_of(document, next_columns(document, wide(6), left)) == after
    assert next_columns(document, wide(12), 0.5) == wide(12), (
        "half of what eight devices' residual may have is the most"
    )
    assert next_columns(document, wide(1), 0.0) == wide(1)
    assert columns_of(document, wide(5)) == 3, "no width of this task"


def test_a_task_that_does_not_ask_for_it_keeps_its_sketch() -> None:
    document = lora_document(m=30, n=26, method={"name": "fedit_rs1"})
    start = start_of(document)
    made = advance(start, first_sum(start, lora_updates(document, 9)))
    assert COLUMNS not in made.public
    assert columns_of(document, wide(6)) == 3
    assert allowed_sums(document, 0) == (sum_specs(document),)


def test_rounds_grow_their_sketch_until_little_is_missed() -> None:
    """Nine devices of four kinds that drift far: their residual has rank 9, which the widest sketch has room for."""
    document = document_of()
    adapter, state, left, found = first_adapter(document.layout, 5), dict[str, Any](), [], []
    for version in range(3):
        start = start_of(document, version, adapter, state)
        found.append(columns_of(document, state))
        made = advance(start, first_sum(start, of_four_kinds(document)))
        left.append(made.figures["left_error"])
        state = dict(made.public)
    assert found == [3, 6, 12]
    assert left[2] < 1e-3 * left[0]


def test_a_second_sum_that_was_lost_says_nothing_of_the_sketch() -> None:
    document = document_of("fedit_rs")
    start, updates = start_of(document), lora_updates(document, 9)
    assert widened(played(start, updates)) == 6
    assert widened(played(start, updates, [])) == 3


def widened(made: Advance) -> int:
    return int(made.public[COLUMNS][0])


@pytest.mark.parametrize("name", ["fedit_rs", "fedit_rs1"])
def test_a_masked_round_has_the_sketch_that_its_state_says(name: str) -> None:
    encoding = {"value_range": 0.6, "clip_norm": 100.0, "value_bits": 16, "max_weight": 1}
    document = document_of(name, encoding=encoding)
    adapter, errors = first_adapter(document.layout, 5), []
    for columns in (3, 12):
        round_ = MemoryRound(MemoryFederation(9), document, adapter=adapter, public=wide(columns))
        check_offer_matches(round_.server.offer, document)
        round_.run(of_four_kinds(document), [1] * 9)
        assert round_.finish is not None
        errors.append(advance(round_.start, round_.finish.aggregate, round_.finish.second).figures["left_error"])
    assert errors[1] < 0.1 * errors[0]


def test_a_width_that_the_task_does_not_allow_is_refused_and_a_wrong_one_cannot_be_sent() -> None:
    """The offer comes before the state: a device accepts any width of the task, and encodes only the right length."""
    document = document_of()
    offer = MemoryRound(MemoryFederation(9), document).server.offer
    (ring,) = (spec.ring for spec in offer.sums)
    longer = ring.model_copy(update={"sketch_size": ring.sketch_size + 1})
    with refused(ProblemType.CONTEXT_MISMATCH):
        check_offer_matches(
            offer.model_copy(update={"sums": (offer.sums[0].model_copy(update={"ring": longer}),)}), document
        )
    lying = MemoryRound(MemoryFederation(9), document, public=wide(6))
    lying.public = wide(12)
    with refused(ProblemType.ENCODING_REFUSED):
        lying.run(lora_updates(document, 9), [1] * 9)


def test_other_methods_have_no_sketch_that_adapts() -> None:
    with pytest.raises(ValidationError, match="belongs to fedit_rs and fedit_rs1, not to fedavg"):
        lora_document(method={"sketch_adapts": True})
