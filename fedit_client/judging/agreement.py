"""How far a judge agrees with people, and with itself when the two answers change places. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Choice(StrEnum):
    """Which of two answers is better, in the order in which the file has them."""

    FIRST = "1"
    SECOND = "2"
    TIE = "tie"


@dataclass(frozen=True)
class Labelled:
    """What people say of one pair of answers, and a judge: once in each order, or once. None: no valid verdict."""

    label: Choice
    verdicts: tuple[Choice | None, ...]


@dataclass(frozen=True)
class Agreement:
    """Counts over pairs. With two orders a pair agrees by half where one order does, so `agree` may be a half.

    Where each order was asked several times, all counts are means over the repeats.
    """

    pairs: int
    orders: int
    agree: float
    ties: float
    """Verdicts of the judge's own that neither is better; like `invalid`, per order."""
    invalid: float
    consistent: float | None
    """Pairs with the same record in both orders; None where there is one order.

    As in the published figures, a pair without a verdict in either order counts among them; `missing` says how many.
    """
    missing: float
    kappa: float | None
    repeats: int = 1

    @property
    def share(self) -> float:
        """The agreement: a verdict that is missing, or a tie where people see none, does not agree."""
        return self.agree / self.pairs

    @property
    def decided(self) -> float:
        """Pairs on which the judge prefers one of the answers."""
        return self.pairs - self.ties - self.invalid

    @property
    def consistency(self) -> float | None:
        """The share of pairs that are judged alike in both orders."""
        return None if self.consistent is None else self.consistent / self.pairs

    def as_data(self) -> dict[str, Any]:
        """The counts and shares, for programs."""
        return {
            "pairs": self.pairs,
            "orders": self.orders,
            "repeats": self.repeats,
            "agree": self.agree,
            "agreement": self.share,
            "ties": self.ties,
            "invalid": self.invalid,
            "decided": self.decided,
            "agree_of_decided": self.agree / self.decided if self.decided else None,
            "consistent": self.consistent,
            "position_consistency": self.consistency,
            "missing": self.missing,
            "kappa": self.kappa,
        }


LEAST_AGREEMENT: Final = 0.65
LEAST_CONSISTENCY: Final = 0.70
VALIDATION_SET: Final = "MT-Bench"
VALIDATION_PAIRS: Final = 200


def agreement(found: Sequence[Labelled], repeats: int = 1) -> Agreement:
    """Count over pairs that all have the same number of orders, one or two; raises ValueError for others or none.

    With `repeats` each pair is there so many times.
    """
    orders = {len(pair.verdicts) for pair in found}
    if len(orders) != 1 or not orders <= {1, 2}:
        raise ValueError("the pairs have no verdicts, or some in one order and some in two")
    (count,) = orders
    seen = [(pair.label, verdict) for pair in found for verdict in pair.verdicts]
    both = [len(set(pair.verdicts)) == 1 for pair in found]
    times = count * repeats
    return Agreement(
        pairs=len(found) // repeats,
        orders=count,
        repeats=repeats,
        agree=sum(label == verdict for label, verdict in seen) / times,
        ties=sum(verdict is Choice.TIE for _, verdict in seen) / times,
        invalid=sum(verdict is None for _, verdict in seen) / times,
        consistent=sum(both) / repeats if count > 1 else None,
        missing=sum(set(pair.verdicts) == {None} for pair in found) / repeats,
        kappa=cohens_kappa([(label, verdict) for label, verdict in seen if verdict is not None]),
    )


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return the agreement of two raters beyond chance (Cohen 1960); None where chance alone would agree always."""
    if not pairs:
        return None
    total = len(pairs)
    ours, theirs = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    observed = sum(first == second for first, second in pairs) / total
    expected = sum(ours[name] * theirs[name] for name in ours) / total**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def standing(found: Agreement, name: str) -> str:
    """Return `validated`, or `not validated` with the reason: the bar is on MT-Bench-200 and in both orders."""
    if VALIDATION_SET not in name or found.pairs < VALIDATION_PAIRS or found.consistent is None:
        return f"not validated: the bar is on the {VALIDATION_PAIRS} pairs of {VALIDATION_SET}, in both orders"
    consistency = (found.consistent - found.missing) / found.pairs  # having no verdict twice is no consistency
    if found.share < LEAST_AGREEMENT or consistency < LEAST_CONSISTENCY:
        share = f"agreement {100 * found.share:.1f} % (at least {100 * LEAST_AGREEMENT:.0f} %)"
        alike = f"position consistency {100 * consistency:.1f} % (at least {100 * LEAST_CONSISTENCY:.0f} %)"
        return f"not validated: {share}, {alike}"
    return "validated"


PUBLISHED: Final = (
    ("MT-Bench, 200", "GPT-4 81 / 87 %, ChatGPT 71 / 58 %"),
    ("LLMEval², 200", "GPT-4 75.5 / 87.5 %, ChatGPT 70 / 72 %"),
    ("FairEval, 66", "GPT-4 73 / 70 %, ChatGPT 58 / 18 %"),
    ("LLMBar Natural, 100", "GPT-4 93.5 / 97 %, ChatGPT 79 / 68 %"),
    ("LLMBar Adversarial, 319", "GPT-4 71 / 89 %, ChatGPT 28 / 59 %"),
)
"""Agreement / position consistency of published judges, from the public records of LLMBar, FastChat and PandaLM."""
