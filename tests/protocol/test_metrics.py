"""The figures under the mask: ranges that every client can meet, weights that make the sums means."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.errors import ProblemType
from fedit_protocol.metrics import (
    FRACTION_UNIT,
    MAX_EXAMPLES,
    MAX_LOSS,
    ClientReport,
    decode_report,
    encode_report,
    metric_specs,
)

from .rounds import refused

LOSSES = st.floats(0, 1e9)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**12), LOSSES, st.none() | LOSSES, st.floats(0, 5), st.integers(1, 1024))
def test_every_report_fits_its_declared_ranges(
    examples: int, train: float, held_out: float | None, clipped: float, weight: int
) -> None:
    encoded = encode_report(ClientReport(examples, train, held_out, clipped), weight)
    specs = metric_specs(weight)
    assert list(encoded) == [spec.name for spec in specs]
    for spec in specs:
        assert 0 <= encoded[spec.name] <= spec.maximum


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 15), st.floats(0, 29), st.none() | st.floats(0, 29)), min_size=1, max_size=9))
def test_the_sums_give_weighted_means(clients: list[tuple[int, float, float | None]]) -> None:
    reports = [(weight, encode_report(ClientReport(10, train, held), weight)) for weight, train, held in clients]
    sums = {name: sum(encoded[name] for _, encoded in reports) for name in reports[0][1]}
    total = sum(weight for weight, _ in reports)
    found = decode_report(sums, total)
    assert found.examples == 10 * len(clients)
    assert found.train_loss == pytest.approx(sum(w * train for w, train, _ in clients) / total, abs=5e-4)
    measured = [(weight, held) for weight, _, held in clients if held is not None]
    if measured:
        mean = sum(weight * held for weight, held in measured) / sum(weight for weight, _ in measured)
        assert found.held_out_loss == pytest.approx(mean, abs=5e-4)
    else:
        assert found.held_out_loss is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, -float("inf")])
@pytest.mark.parametrize("place", ["train_loss", "held_out_loss", "clipped_fraction"])
def test_a_figure_that_is_no_figure_is_refused(place: str, value: float) -> None:
    report = replace(ClientReport(1, 0.0, 0.0), **{place: value})  # type: ignore[arg-type]  # of one of three floats
    with refused(ProblemType.ENCODING_REFUSED):
        encode_report(report, 1)


def test_a_diverged_loss_is_capped_and_not_refused() -> None:
    encoded = encode_report(ClientReport(MAX_EXAMPLES + 5, 1e30, 31.0, 7.0), 2)
    found = decode_report(encoded, 2)
    assert (found.train_loss, found.held_out_loss) == (MAX_LOSS, MAX_LOSS)
    assert (found.examples, found.clipped_fraction) == (MAX_EXAMPLES, 1.0)


def test_no_held_out_rows_is_not_a_loss_of_zero() -> None:
    none = encode_report(ClientReport(5, 1.0, None), 3)
    zero = encode_report(ClientReport(5, 1.0, 0.0), 3)
    assert (none["held_out_weight"], zero["held_out_weight"]) == (0, 3)
    assert decode_report(none, 3).held_out_loss is None
    assert decode_report(zero, 3).held_out_loss == 0.0


def test_the_specs_grow_with_the_largest_weight_only() -> None:
    one, ten = ({spec.name: spec.maximum for spec in metric_specs(weight)} for weight in (1, 10))
    assert one["examples"] == ten["examples"]
    assert ten["train_loss"] == 10 * one["train_loss"]
    assert ten["clipped_fraction"] == 10 * FRACTION_UNIT
