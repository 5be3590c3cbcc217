"""From a roster's size to who must survive and how many shares rebuild a secret (SPEC, section 5).

n members, c assumed corrupt, s_min least survivors, t Shamir threshold. The rules 2t > n + c, t ≤ s_min ≤ n and t ≥ 2
make it impossible to collect t shares of both secrets of one member, whatever views a server invents.
"""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Final, Self

from fedit_protocol.collusion import corrupt_of, exactly
from fedit_protocol.errors import ConfigError
from fedit_protocol.messages import CohortRules, SecondRule

SECOND_SHARE: Final = 0.75
"""The least share of the first sum's survivors, and of their weight, behind a second sum under the rule `subset`."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of one roster; making infeasible ones raises ConfigError C020."""

    members: int
    corrupt: int
    min_survivors: int
    threshold: int
    strict: bool = False

    def __post_init__(self) -> None:
        n, c, s, t = self.members, self.corrupt, self.min_survivors, self.threshold
        for holds, rule in (
            (s <= n, f"min_survivors = {s} exceeds the roster of {n}"),
            (t <= s, f"threshold = {t} exceeds min_survivors = {s}"),
            (2 * t > n + c, f"threshold = {t} is too low: 2t must exceed n + c = {n + c}"),
            (t >= 2, f"threshold = {t} is below 2"),
        ):
            if not holds:
                raise ConfigError(f"a cohort of {n} is infeasible: {rule}", code="C020")

    @classmethod
    def of(cls, n: int, rules: CohortRules) -> Self:
        """Return the thresholds for n members; raises ConfigError C020 if the rules cannot be met."""
        corrupt = corrupt_of(n, rules.corrupt_fraction)
        least = confirmation_quorum(n, corrupt)
        survivors = rules.min_survivors or max(expected_survivors(n, rules.dropout_fraction), least)
        if n >= 12 and not rules.min_survivors:
            while floor(0.9 * survivors) < least:
                survivors += 1
        default = floor(0.9 * survivors) if n >= 12 else max(least, survivors - 1)
        return cls(n, corrupt, survivors, rules.threshold or default, rules.strict)

    def against(self, corrupt_fraction: float) -> Self:
        """Return the same thresholds judged by somebody who expects this share to collude, if that is more.

        Raises ConfigError C020 if they do not hold then: a device judges by its owner's share, not by the offer's.
        """
        corrupt = max(self.corrupt, corrupt_of(self.members, corrupt_fraction))
        return replace(self, corrupt=corrupt)

    @property
    def hidden_among(self) -> int:
        """n_priv: the fewest honest devices that any opened sum covers, for an active server with c devices.

        In strict mode no second view of U3 can be confirmed, so no pair of survivors can be split off.
        """
        c, t = self.corrupt, self.threshold
        if self.strict:
            return self.min_survivors - c
        return min(
            (m - c) - ((m - c) * (m - self.min_survivors)) // (t - c)
            for m in range(self.min_survivors, self.members + 1)
        )


def expected_survivors(n: int, dropout_fraction: float) -> int:
    """Return how many of n devices are there to the end if no more drop out than the task reckons with."""
    return ceil(exactly((1 - dropout_fraction) * n))


def confirmation_quorum(n: int, corrupt: int) -> int:
    """Return how many members must confirm one U3 (C17): two sets confirmed would need more than c double signers."""
    return (n + corrupt) // 2 + 1


def least_second_survivors(rule: SecondRule, first: int, min_survivors: int) -> int:
    """Return how many of the `first` survivors of the first sum must stand behind a second one (C18)."""
    return first if rule is SecondRule.ALL else max(min_survivors, ceil(SECOND_SHARE * first))
