"""A fleet's rounds in words: what people read while it runs."""

from typing import Any

import pytest

from fedit_client.fleet.report import round_words

LINE: dict[str, Any] = {
    "round": 3, "outcome": "committed", "adapter_version": 3, "clients": 5, "survivors": 4, "dropped": {"upload": 1},
    "train_loss": 2.5, "held_out_loss": None, "personal_loss": None, "domain_losses": {"poems": 3.0, "sums": 2.0},
    "wall_s": 10.0, "train_s": 8.0, "bytes_up": 2_000_000, "reason": "",
}  # fmt: skip


def test_a_round_is_told_in_one_line() -> None:
    assert round_words(LINE, 4) == (
        "round 3/4 · 5 clients, 1 dropped, 4 summed · loss 2.500 · worst domain poems 3.000 · 10 s, 8 s of it steps · "
        "2.0 MB up"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"adapter_version": 2}, "round 3, 2 of 4 committed · "),
        (
            {"domain_losses": {}, "coverage": 0.75, "method": {"audit_error": 0.0123456}},
            "round 3/4 · 5 clients, 1 dropped, 4 summed · loss 2.500 · coverage 75% · audit_error 0.0123 · 10 s",
        ),
        ({"outcome": "failed", "reason": "too few came"}, "round 3 came to nothing: too few came, 1 dropped"),
    ],
)
def test_a_line_counts_committed_rounds_only_and_has_what_the_server_reports(line: dict[str, Any], words: str) -> None:
    assert round_words(LINE | line, 4).startswith(words)
