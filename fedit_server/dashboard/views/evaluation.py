"""What evaluators measured of each new adapter: devices that the operator named, on rows that nobody trains on."""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from statistics import fmean

from fedit_protocol.evaluation import CategoryLoss
from fedit_protocol.ids import TaskId
from fedit_server.dashboard.views.model import MOST_POINTS, View
from fedit_server.storage.readings import Evaluated
from fedit_server.storage.rows import EvaluationRow, categories_of
from fedit_server.storage.store import Store


class Report(View):
    """One evaluator's signed word about one step; `gain` is how much the loss fell."""

    evaluator: str
    loss_before: float
    loss_after: float
    gain: float
    rows: int
    tokens: int


class RoundReports(View):
    """The reports of one round together; the mean weighs every evaluator alike."""

    round_no: int
    reports: tuple[Report, ...]
    mean_loss: float
    mean_gain: float
    worst_loss: float
    worst_gain: float
    spread: float
    """Between the worst and the best evaluator's loss: how unevenly the adapter serves them."""


class CategoryLine(View):
    """One category of evaluators' rows in one round: means over the evaluators that have it, each with the same say."""

    name: str
    loss_before: float
    loss_after: float
    gain: float
    tokens: int
    evaluators: int


class EvaluationPage(View):
    """The newest evaluated rounds of a task, newest first."""

    task: str
    title: str
    evaluators: int
    max_loss_ratio: float
    """The gate on evaluators' figures; 0 if none is set."""
    rounds: tuple[RoundReports, ...]
    categories: tuple[CategoryLine, ...]
    """Of the newest evaluated round, the smallest gain first; empty if no evaluator's rows have categories."""
    category_spread: float | None
    """Between the highest and the lowest loss of a category."""


def reports_of(rows: Iterable[EvaluationRow | Evaluated]) -> tuple[Report, ...]:
    """Return what evaluators said, each by the beginning of its id."""
    return tuple(
        Report(
            evaluator=(row.client_id if isinstance(row, EvaluationRow) else row.evaluator)[:12],
            loss_before=row.loss_before,
            loss_after=row.loss_after,
            gain=row.loss_before - row.loss_after,
            rows=row.rows,
            tokens=row.tokens,
        )
        for row in rows
    )


def together(round_no: int, reports: Sequence[Report]) -> RoundReports:
    """Return one round's reports with mean, worst and spread; `reports` is not empty."""
    losses, gains = [report.loss_after for report in reports], [report.gain for report in reports]
    return RoundReports(
        round_no=round_no,
        reports=tuple(reports),
        mean_loss=sum(losses) / len(losses),
        mean_gain=sum(gains) / len(gains),
        worst_loss=max(losses),
        worst_gain=min(gains),
        spread=max(losses) - min(losses),
    )


def categories_together(reports: Sequence[Sequence[CategoryLoss]]) -> tuple[CategoryLine, ...]:
    """Return the categories of one round's reports, the smallest gain first."""
    found: dict[str, list[CategoryLoss]] = {}
    for one in chain.from_iterable(reports):
        found.setdefault(one.name, []).append(one)
    lines = [_category(name, losses) for name, losses in found.items()]
    return tuple(sorted(lines, key=lambda line: (line.gain, line.name)))


def _category(name: str, losses: Sequence[CategoryLoss]) -> CategoryLine:
    before, after = fmean(one.loss_before for one in losses), fmean(one.loss_after for one in losses)
    tokens = sum(one.tokens for one in losses)
    return CategoryLine(
        name=name, loss_before=before, loss_after=after, gain=before - after, tokens=tokens, evaluators=len(losses)
    )


async def gains_by_category(store: Store, task_id: TaskId, names: Sequence[str]) -> dict[int, dict[str, float]]:
    """Return round → category → gain for the newest evaluated rounds, of these categories only."""
    found: dict[int, dict[str, float]] = {}
    for no, rows in groupby(await store.readings.evaluated(task_id, MOST_POINTS), key=lambda one: one.round_no):
        lines = categories_together([categories_of(row.envelope) for row in rows])
        found[no] = {line.name: line.gain for line in lines if line.name in names}
    return found


async def evaluation_page(store: Store, task_id: TaskId) -> EvaluationPage | None:
    """Return a task's newest evaluations; None without such a task."""
    task = await store.tasks.task(task_id)
    if task is None:
        return None
    found = await store.readings.evaluated(task_id, MOST_POINTS)
    by_round = [(no, list(rows)) for no, rows in groupby(found, key=lambda one: one.round_no)]
    categories = categories_together([categories_of(one.envelope) for one in by_round[0][1]]) if by_round else ()
    losses = [line.loss_after for line in categories]
    return EvaluationPage(
        task=task_id,
        title=task.document.task.title,
        evaluators=len(await store.candidates.evaluators()),
        max_loss_ratio=task.document.task.gates.max_loss_ratio,
        rounds=tuple(together(no, reports_of(rows)) for no, rows in by_round),
        categories=categories,
        category_spread=max(losses) - min(losses) if losses else None,
    )
