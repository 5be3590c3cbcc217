"""The bench of the methods on drawn states: its parts run, and what they measure is in the range that is promised."""

from ..bench import methods_exact, methods_nested, methods_rs
from ..bench.methods_states import drawn_states


def test_methods_of_one_factor_lose_nothing_and_send_less() -> None:
    found = methods_exact.figures_of(drawn_states())
    assert found["ffa_error"] <= 1e-6
    assert found["rolora_error"] <= 1e-6
    assert found["ffa_error_8_bits"] <= 1e-2
    assert found["rolora_error_8_bits"] <= 1e-2
    assert 0.45 < found["rolora_bytes"] < 0.55


def test_the_second_sum_recovers_what_averaging_loses() -> None:
    """Drawn spectra are flatter than trained ones: the promise of .5 is for those."""
    found = methods_rs.figures_of(drawn_states())
    assert found["rs_error_over_fedit"] < 0.75
    assert found["rs_one_missing_over_fedit"] < 0.8
    assert found["rs_exact_error"] <= 1e-6
    assert 0.85 < found["audit_error_over_truth"] < 1.15


def test_nested_ranks_are_fedit_at_equal_ranks_and_starve_no_slice() -> None:
    found = methods_nested.figures_of(drawn_states())
    assert found["nested_equal_rank_error"] <= 1e-12
    assert found["nested_high_slices_over_padding"] > 1.5
