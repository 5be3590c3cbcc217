"""Compression under masks: what is sent, what stays for later, and how much of the mean comes back."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import AdapterLayout, TensorSpec, Vector
from fedit_protocol.compression import CHOSEN, RANGES, Compression
from fedit_protocol.metrics import CohortReport
from fedit_protocol.secagg.ring import ring_spec
from fedit_protocol.task import Task
from fedit_protocol.task_compression import SIZE_DEVICES

LAYOUT = AdapterLayout(tensors=(TensorSpec(name="a", shape=(8, 50)), TensorSpec(name="b", shape=(30, 8))))


def task(kind: str, **values: Any) -> Task:
    tables = {"encoding": {"value_range": 0.01, "clip_norm": 1.0, "value_bits": 4, "max_weight": 1}, **values}
    return Task.model_validate(
        {"id": "t", "title": "T", "base": {"model": "m"}, "compression": {"kind": kind}, **tables}
    )


def rule(kind: str) -> Compression:
    found = Compression.of(task(kind), LAYOUT)
    assert found is not None
    return found


def updates(count: int = 5, scale: float = 0.002) -> list[Vector]:
    draw = np.random.default_rng(3)
    common = draw.standard_normal(LAYOUT.size) * scale
    return [(common + draw.standard_normal(LAYOUT.size) * scale / 2).astype(np.float32) for _ in range(count)]


def flat_update() -> Vector:
    """Return an update as AdamW makes them: nearly all coordinates move nearly as far."""
    draw = np.random.default_rng(5)
    sizes = draw.uniform(0.5, 1.5, LAYOUT.size) * draw.choice([-1.0, 1.0], LAYOUT.size)
    return np.asarray(0.002 * sizes, dtype=np.float32)


def report(parts: list[dict[str, int]]) -> CohortReport:
    return CohortReport(1, 1.0, None, 0.0, statistics={name: sum(part[name] for part in parts) for name in parts[0]})


@pytest.mark.parametrize("kind", ["fitted", "sign"])
def test_ranges_follow_the_updates_by_at_most_a_factor_of_two(kind: str) -> None:
    compression, public = rule(kind), dict[str, Any]()
    first = compression.ranges(public)
    for version in range(8):
        parts = [compression.compress(one, public, {}).figures for one in updates()]
        before = compression.ranges(public)
        public = compression.next_public(version, public, np.zeros(LAYOUT.size), report(parts))
        assert np.all(public[RANGES] <= before * 2 + 1e-12)
        assert np.all(public[RANGES] >= before / 2 - 1e-12)
    rms = np.sqrt(np.mean(np.square(updates())))
    wanted = 2 * rms if kind == "fitted" else float(np.mean(np.abs(updates())))
    assert public[RANGES] == pytest.approx([wanted] * 2, rel=0.15)
    assert first[0] == pytest.approx(0.01 if kind == "fitted" else 0.005)
    idle = compression.next_public(9, public, np.zeros(LAYOUT.size), CohortReport(1, 1.0, None, 0.0))
    assert idle[RANGES] == pytest.approx(public[RANGES])


def test_a_fitted_message_fills_the_ring_and_comes_back() -> None:
    compression = rule("fitted")
    public = {RANGES: np.array([0.02, 0.0001])}
    update = updates(1)[0]
    sent = compression.compress(update, public, {})
    assert np.abs(sent.message).max() <= 0.01 * (1 + 1e-6)
    back = compression.expand(sent.message.astype(np.float64), public)
    assert back[:400] == pytest.approx(update[:400], abs=1e-8)
    assert np.abs(back[400:]).max() <= 0.0001 * (1 + 1e-6)
    assert sent.left == {}


@pytest.mark.parametrize("kind", ["sign", "sparse"])
def test_what_was_left_out_is_sent_later(kind: str) -> None:
    """With error feedback the sum over rounds follows the sum of the updates; what is missing does not grow."""
    compression, public, left = rule(kind), dict[str, Any](), dict[str, Any]()
    update, sent, missing = flat_update(), np.zeros(LAYOUT.size), list[float]()
    for version in range(30):
        found = compression.compress(update, public, left)
        change = compression.expand(found.message.astype(np.float64), public)
        sent, left = sent + change, found.left
        statistics = report([found.figures]) if found.figures else CohortReport(1, 1.0, None, 0.0)
        public = compression.next_public(version, public, change, statistics)
        missing.append(float(np.linalg.norm(sent - (version + 1) * update) / np.linalg.norm(update)))
    whole = np.concatenate([left["a"], left["b"]])
    assert np.linalg.norm(sent + whole - 30 * update) == pytest.approx(0, abs=1e-4)
    assert missing[-1] < 1.5 * max(missing[10:20])


def test_a_sparse_round_has_the_same_coordinates_on_every_device() -> None:
    compression = rule("sparse")
    first = compression.chosen({})
    assert first.sum() == compression.size == round(400 * 0.25) + round(240 * 0.25)
    change = np.zeros(LAYOUT.size)
    change[:20], change[400:410] = 1.0, 2.0
    public = compression.next_public(0, {}, change, CohortReport(1, 1.0, None, 0.0))
    second = compression.chosen(public)
    assert second.sum() == compression.size
    assert second[:20].all()
    assert second[400:410].all()
    later = compression.next_public(1, public, change, CohortReport(1, 1.0, None, 0.0))
    assert (compression.chosen(later) != second).any()  # the drawn half is another one
    assert public[CHOSEN].dtype == np.float32


def test_rings_hold_what_is_left() -> None:
    bits = {kind: rule(kind).ring(ring_spec(task(kind), LAYOUT.size)) for kind in ("fitted", "sign", "sparse")}
    assert (bits["sign"].value_bits, bits["sign"].size) == (2, 640)
    packed = task("sign", encoding={"value_range": 0.01, "packed": True, "max_weight": 1}, round={"cohort_size": 15})
    narrow = Compression.of(packed, LAYOUT)
    assert narrow is not None
    assert narrow.ring(ring_spec(packed, LAYOUT.size)).packed_bits == 5
    assert (bits["sparse"].value_bits, bits["sparse"].size) == (4, 160)
    assert (bits["fitted"].value_bits, bits["fitted"].size) == (4, 640)


def test_an_update_is_clipped_before_it_is_compressed() -> None:
    compression, update = rule("sparse"), np.full(LAYOUT.size, 1.0, np.float32)
    sent = compression.compress(update, {}, {})
    share = 1 / np.sqrt(LAYOUT.size)
    assert sent.message == pytest.approx(np.full(160, min(share, 0.04)))
    assert np.concatenate([sent.left["a"], sent.left["b"]]).max() == pytest.approx(share, rel=1e-5)
    assert compression.ring(ring_spec(task("sparse"), LAYOUT.size)).value_range == pytest.approx(0.04)
    assert SIZE_DEVICES not in sent.figures


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "noise": ({"privacy": {"noise_multiplier": 1.0}, "encoding": {"max_weight": 1}}, "no \\[privacy\\]"),
    "trusted": ({"round": {"mode": "trusted"}}, "needs round.mode = masked"),
    "turns": ({"method": {"name": "rolora"}}, "the same coordinates"),
    "two sums": ({"method": {"name": "fedit_rs"}}, "fedavg is the nearest"),
    "an audit": ({"method": {"audit_every": 5}}, "whose message is no update"),
    "a median": ({"round": {"cohorts": 5, "combine": "median"}}, "fitted goes with every rule"),
}


@pytest.mark.parametrize(("tables", "why"), REFUSED.values(), ids=REFUSED)
def test_a_task_that_cannot_be_compressed_is_refused_with_the_nearest_that_can(
    tables: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        task("sparse", **tables)
