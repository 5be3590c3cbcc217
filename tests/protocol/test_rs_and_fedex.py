"""FedIT+RS, from two sums, makes the step that FedEx-LoRA makes of single updates, if its sketch is wide enough."""

import numpy as np

from fedit_protocol.adapter import first_adapter
from fedit_protocol.advance import Advance, advance
from fedit_protocol.methods import RoundStart, TwoSumMethod, method_of, side_delta
from fedit_protocol.methods.contract import State
from fedit_protocol.methods.lora_pairs import Matrix, lora_pairs
from fedit_protocol.methods.trusted import single_updates

from .lora_rounds import first_sum, lora_document, lora_updates, start_of, summed


def test_both_make_the_same_product_to_a_millionth_of_the_update() -> None:
    rs = lora_document(m=30, n=26, method={"name": "fedit_rs", "sketch_rank": 9})  # the residual's rank with 4 devices
    fedex = lora_document(m=30, n=26, method={"name": "fedex_lora"}, round={"mode": "trusted", "cohort_min": 1})
    updates, adapter = lora_updates(rs, 4), first_adapter(rs.layout, 5)
    ours = two_sums(start_of(rs, adapter=adapter), updates)
    begun = start_of(fedex, adapter=adapter)
    theirs = advance(begun, single_updates(begun, updates, [1, 1, 1, 1]))
    assert np.abs(ours.adapter - theirs.adapter).max() < 1e-6
    before = whole(begun, Advance(adapter, {}, {}, {}), {})
    found = whole(begun, ours, residual(ours.kept, side_delta.FULL))
    wanted = whole(begun, theirs, residual(theirs.public, side_delta.SIDE))
    moved = sum(float(np.square(one - other).sum()) for one, other in zip(wanted, before, strict=True))
    apart = sum(float(np.square(one - other).sum()) for one, other in zip(wanted, found, strict=True))
    assert apart**0.5 < 1e-6 * moved**0.5


def two_sums(start: RoundStart, updates: list[np.ndarray]) -> Advance:
    method, first = method_of(start.document), first_sum(start, updates)
    assert isinstance(method, TwoSumMethod)
    derived = method.derive(first, start)
    assert derived is not None
    messages = [method.second_message(update, start, *derived) for update in updates]
    return advance(start, first, summed(messages, len(messages[0])))


def residual(state: State, name: str) -> dict[str, Matrix]:
    return {path: left @ right for path, (left, right) in side_delta.read(state, name).items()}


def whole(start: RoundStart, made: Advance, more: dict[str, Matrix]) -> list[Matrix]:
    """What a version adds to each layer's weight."""
    scale = start.document.task.adapter.alpha / start.document.task.adapter.rank
    pairs = [(pair.path, pair.factors(made.adapter)) for pair in lora_pairs(start.document.layout)]
    return [scale * b @ a + more.get(path, 0) for path, (a, b) in pairs]
