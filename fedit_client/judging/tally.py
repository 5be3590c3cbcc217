"""From verdicts to a result: wins that both orders agree on, scores as means of both, and how sure it is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np

from fedit_client.judging.agreement import Choice
from fedit_client.judging.answers import Contest
from fedit_client.judging.trials import Scores, Trial, Verdict, preferred
from fedit_protocol.words import counted

_DRAWS: Final = 2000
_DRAW_SEED: Final = 2023
_COVERED: Final = (2.5, 97.5)
_POINTS: Final = {Choice.FIRST: 1.0, Choice.TIE: 0.5, Choice.SECOND: 0.0}


@dataclass(frozen=True)
class Tally:
    """One model against another, over all questions and repeats; a comparison is one question in both orders.

    In pairwise mode a win counts only where both orders agree, else it is a tie; in score mode the mean of both orders
    decides. A comparison of which one order has no readable verdict is invalid, and counts nowhere else. Where each
    answer was graded by itself there is one order, and the higher grade wins.
    """

    ours: str
    theirs: str
    wins: int
    ties: int
    losses: int
    invalid: int
    win_rate: float | None
    """(wins + ties / 2) / valid, with the 95 % interval of a bootstrap over questions."""
    interval: tuple[float, float] | None
    consistent: int | None
    """Valid comparisons with the same verdict in both orders; None where there is one order."""
    scores: Scores | None
    """Sums of the mean scores, ours and theirs; score mode only."""
    turns: Mapping[int, Scores]
    """Mean scores, ours and theirs, of all first turns (1) and of all second ones (2)."""
    relative: float | None
    """Ours over theirs."""
    relative_interval: tuple[float, float] | None
    lengths: tuple[float, float]
    """Mean words of an answer: judges like long ones."""

    @property
    def valid(self) -> int:
        """Comparisons that count."""
        return self.wins + self.ties + self.losses

    @property
    def consistency(self) -> float | None:
        """The share of the valid ones that both orders agree on."""
        return self.consistent / self.valid if self.valid and self.consistent is not None else None

    def as_data(self) -> dict[str, Any]:
        """The result, for programs."""
        return {**asdict(self), "valid": self.valid, "position_consistency": self.consistency}

    def lines(self) -> list[str]:
        """The result, for people."""
        invalid = f"; {self.invalid} could not be read and count nowhere" if self.invalid else ""
        counts = f"won {self.wins}, lost {self.losses}, tied {self.ties} of {counted(self.valid, 'comparison')}"
        lines = [f"{self.ours} against {self.theirs}: {counts}{invalid}"]
        if self.win_rate is not None and self.interval is not None:
            low, high = (100 * end for end in self.interval)
            lines.append(f"  win rate {100 * self.win_rate:.1f} % (95 % interval {low:.1f} to {high:.1f} %)")
        if self.consistency is not None:
            lines.append(f"  the same verdict in both orders: {100 * self.consistency:.1f} %")
        if self.scores is not None:
            lines += self._score_lines(self.scores)
        lines.append(f"  mean length of answers: {self.lengths[0]:.0f} and {self.lengths[1]:.0f} words")
        return lines

    def _score_lines(self, scores: Scores) -> list[str]:
        lines = [f"  sum of scores {scores[0]:g} to {scores[1]:g}"]
        if self.relative is not None and self.relative_interval is not None:
            low, high = self.relative_interval
            lines[0] += f", relative {self.relative:.3f} (95 % interval {low:.3f} to {high:.3f})"
        turns = [f"turn {turn} {ours:.2f} to {theirs:.2f}" for turn, (ours, theirs) in self.turns.items()]
        apart = f" ({', '.join(turns)})" if len(turns) > 1 else ""
        return [*lines, f"  mean score {scores[0] / self.valid:.2f} to {scores[1] / self.valid:.2f}{apart}"]


@dataclass(frozen=True)
class _Outcome:
    """One comparison: its turn, points 1, ½ or 0, whether the orders agree if there are two, and the mean scores."""

    turn: int
    points: float
    consistent: bool | None
    scores: Scores | None


def tally(contests: Sequence[Contest], verdicts: Mapping[Trial, Verdict | None]) -> list[Tally]:
    """Return one result for each pair of models, in the order in which they first appear."""
    pairs = dict.fromkeys((contest.ours, contest.theirs) for contest in contests)
    return [
        _tally(ours, theirs, [c for c in contests if (c.ours, c.theirs) == (ours, theirs)], verdicts)
        for ours, theirs in pairs
    ]


def outcomes(contest: Contest, verdicts: Mapping[Trial, Verdict | None]) -> list[tuple[Verdict | None, ...]]:
    """Return the verdicts of a contest in both orders, or in the only one, for each repeat."""
    found = []
    repeat = 0
    while Trial(contest, repeat, swapped=False) in verdicts:
        orders = [Trial(contest, repeat, swapped) for swapped in (False, True)]
        found.append(tuple(verdicts[trial] for trial in orders if trial in verdicts))
        repeat += 1
    return found


def _tally(ours: str, theirs: str, contests: Sequence[Contest], verdicts: Mapping[Trial, Verdict | None]) -> Tally:
    by_question: list[list[_Outcome]] = []
    invalid = 0
    for contest in contests:
        compared = [_outcome(contest.question.turn, orders) for orders in outcomes(contest, verdicts)]
        by_question.append([one for one in compared if one is not None])
        invalid += sum(one is None for one in compared)
    flat = [one for question in by_question for one in question]
    sums = _sums(flat)
    rates, ratios = _drawn(by_question)
    orders = [one.consistent for one in flat if one.consistent is not None]
    turns = {turn: [one for one in flat if one.turn == turn] for turn in sorted({one.turn for one in flat})}
    return Tally(
        ours=ours,
        theirs=theirs,
        wins=sum(one.points == _POINTS[Choice.FIRST] for one in flat),
        ties=sum(one.points == _POINTS[Choice.TIE] for one in flat),
        losses=sum(one.points == _POINTS[Choice.SECOND] for one in flat),
        invalid=invalid,
        win_rate=sum(one.points for one in flat) / len(flat) if flat else None,
        interval=rates,
        consistent=sum(orders) if orders else None,
        scores=sums,
        turns={
            turn: (total[0] / len(found), total[1] / len(found))
            for turn, found in turns.items()
            if (total := _sums(found)) is not None
        },
        relative=sums[0] / sums[1] if sums and sums[1] else None,
        relative_interval=ratios,
        lengths=_lengths(contests),
    )


def _outcome(turn: int, orders: Sequence[Verdict | None]) -> _Outcome | None:
    found = [verdict for verdict in orders if verdict is not None]
    if len(found) < len(orders):
        return None
    choices = {verdict.choice for verdict in found}
    alike = len(choices) == 1 if len(orders) > 1 else None
    scores = [verdict.scores for verdict in found if verdict.scores is not None]
    if not scores:
        return _Outcome(turn, _POINTS[choices.pop() if len(choices) == 1 else Choice.TIE], alike, None)
    ours, theirs = (fmean(pair[place] for pair in scores) for place in (0, 1))
    return _Outcome(turn, _POINTS[preferred(ours, theirs)], alike, (ours, theirs))


def _sums(found: Sequence[_Outcome]) -> Scores | None:
    scored = [one.scores for one in found if one.scores is not None]
    return (sum(ours for ours, _ in scored), sum(theirs for _, theirs in scored)) if scored else None


Ends = tuple[float, float]


def _drawn(by_question: Sequence[Sequence[_Outcome]]) -> tuple[Ends | None, Ends | None]:
    """The 95 % intervals of win rate and relative score, questions drawn anew."""
    counting = [question for question in by_question if question]
    if not counting:
        return None, None
    random = np.random.default_rng(_DRAW_SEED)
    drawn = random.multinomial(len(counting), np.full(len(counting), 1 / len(counting)), _DRAWS)

    def ends(above: Sequence[float], below: Sequence[float]) -> Ends:
        low, high = np.percentile((drawn @ np.array(above)) / (drawn @ np.array(below)), _COVERED)
        return float(low), float(high)

    rates = ends([sum(one.points for one in question) for question in counting], [len(q) for q in counting])
    if counting[0][0].scores is None:
        return rates, None
    sums = [[sum(one.scores[place] for one in question if one.scores) for question in counting] for place in (0, 1)]
    measurable = bool(np.all(drawn @ np.array(sums[1])))  # a baseline with nothing but zeros is no measure
    return rates, ends(*sums) if measurable else None


def _lengths(contests: Sequence[Contest]) -> tuple[float, float]:
    words = [[len(answer.split()) for answer in contest.answers(swapped=False)] for contest in contests]
    first, second = np.mean(words, axis=0)
    return float(first), float(second)
