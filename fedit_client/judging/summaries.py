"""What judges have found, read from the files of their replies, and a section of a report about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_client.evaluation.report import Page, new_figure
from fedit_client.evaluation.results import first_fault, no_result
from fedit_client.judging.prompts import Mode
from fedit_client.judging.tally import Tally
from fedit_client.judging.verdicts import RESULT, SCHEMA, VALIDATION

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class JudgeResult(BaseModel):
    """One model against another in the eyes of one judge, as a line of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["fedit.judge/1"] = Field(SCHEMA, alias="schema")
    kind: Literal["result"] = RESULT
    judge: str
    mode: Mode
    prompts_hash: str
    tally: Tally

    @property
    def name(self) -> str:
        """Who is compared with whom."""
        return f"{self.tally.ours} against {self.tally.theirs}"

    @property
    def way(self) -> str:
        """How it was judged."""
        alone = self.tally.valid and self.tally.consistent is None
        return f"{self.mode}, each answer alone" if alone else self.mode.value


class Validation(BaseModel):
    """How far a judge agreed with people, as a line of its file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["validation"] = VALIDATION
    judge: str
    prompts_hash: str
    subset: str
    standing: str
    pairs: float
    agreement: float
    position_consistency: float | None
    kappa: float | None

    @property
    def words(self) -> str:
        """How the judge stands, and by which agreement."""
        return f"{self.standing} ({self.subset}: agreement {100 * self.agreement:.1f} %)"


@dataclass(frozen=True)
class Judgements:
    """The results and validations of some files; of the same judge, prompts and models, or data set, the last one."""

    results: tuple[JudgeResult, ...]
    validations: tuple[Validation, ...]

    def standing(self, result: JudgeResult) -> str:
        """Return what the files know of a result's judge with these prompts."""
        same = [one for one in self.validations if _asked(one) == _asked(result)]
        return same[-1].words if same else "not validated"

    def as_data(self) -> dict[str, Any]:
        """The results, for programs."""
        results = [
            {"judge": one.judge, "mode": one.mode.value, "standing": self.standing(one), **one.tally.as_data()}
            for one in self.results
        ]
        validations = [one.model_dump(exclude={"kind", "prompts_hash"}) for one in self.validations]
        return {"judged": results, "validated": validations}

    def lines(self) -> list[str]:
        """The results, for people."""
        told = []
        for one in self.results:
            told += [*one.tally.lines(), f"  judge: {one.judge}, {self.standing(one)}"]
        return [*told, *(f"judge {one.judge}: {one.words}" for one in self.validations)]


def judged_of(line: bytes, where: str) -> JudgeResult | Validation | None:
    """Return the result or the validation that a line of a judge's file is, None for a reply; raises EvaluationError
    V001."""
    try:
        kind = _Kind.model_validate_json(line).kind
        if kind == RESULT:
            return JudgeResult.model_validate_json(line)
        return Validation.model_validate_json(line) if kind == VALIDATION else None
    except ValidationError as error:
        raise no_result(f"this is no result of a judge: {first_fault(error)}", where) from error


def judgements(found: Sequence[JudgeResult | Validation]) -> Judgements:
    """Put the lines of all files together."""
    results = {(*_asked(one), one.name): one for one in found if isinstance(one, JudgeResult)}
    validations = {(*_asked(one), one.subset): one for one in found if isinstance(one, Validation)}
    return Judgements(tuple(results.values()), tuple(validations.values()))


def add_judgements(page: Page, found: Judgements) -> None:
    """Add what judges have found; raises EvaluationError V003 without matplotlib."""
    page.section("A language model as judge")
    if found.results:
        page.text(
            "Every pair of answers is judged in both orders: a win counts where both agree, and by scores their mean "
            "decides; answers that are graded alone have no order. The win rate is (wins + ties / 2) / comparisons, "
            "with the 95 % interval of a bootstrap over questions; what could not be read counts nowhere. Judges like "
            "long answers: words are the mean of each."
        )
        page.table(*_results(found))
        if any(one.tally.win_rate is not None for one in found.results):
            page.figure(win_rates_figure(found.results), "Win rates with their 95 % intervals; the line is a half.")
    if found.validations:
        page.heading("The judges themselves").text("How far each agrees with people on pairs that those have judged.")
        page.table(*_validations(found))


def win_rates_figure(results: Sequence[JudgeResult]) -> "Figure":
    """Draw the win rate of each comparison that has one."""
    shown = [(one, one.tally.win_rate) for one in results if one.tally.win_rate is not None]
    figure = new_figure(8, 1 + 0.5 * len(shown))
    axes: Any = figure.subplots()
    for place, (one, rate) in enumerate(shown):
        axes.plot(one.tally.interval or (rate, rate), [place, place], color="#234")
        axes.plot(rate, place, "o", color="#234")
    axes.axvline(0.5, color="#a33", linewidth=1)
    axes.margins(y=0.2)
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(shown)), [f"{one.name}\n{one.judge}, {one.way}" for one, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("win rate")
    return figure


class _Kind(BaseModel):
    kind: str


def _asked(one: JudgeResult | Validation) -> tuple[str, str]:
    return one.judge, one.prompts_hash


def _results(found: Judgements) -> tuple[list[str], list[list[str]]]:
    head = ["models", "judge", "mode", "won", "tied", "lost", "not read", "win rate", "95 % interval",
            "both orders alike", "mean score", "relative", "words", "the judge is"]  # fmt: skip
    rows = []
    for one in found.results:
        tally = one.tally
        ends = "–" if tally.interval is None else f"{100 * tally.interval[0]:.1f} to {100 * tally.interval[1]:.1f} %"
        rows.append([
            one.name, one.judge, one.way, str(tally.wins), str(tally.ties), str(tally.losses),
            str(tally.invalid), _percent(tally.win_rate), ends, _percent(tally.consistency), _scores(tally),
            _figure(tally.relative),
            f"{tally.lengths[0]:.0f} and {tally.lengths[1]:.0f}", found.standing(one),
        ])  # fmt: skip
    return head, rows


def _validations(found: Judgements) -> tuple[list[str], list[list[str]]]:
    head = ["judge", "pairs of", "pairs", "agreement", "both orders alike", "kappa", "standing"]
    rows = [
        [one.judge, one.subset, f"{one.pairs:g}", _percent(one.agreement), _percent(one.position_consistency),
         _figure(one.kappa), one.standing]
        for one in found.validations
    ]  # fmt: skip
    return head, rows


def _scores(tally: Tally) -> str:
    return "–" if tally.scores is None else " to ".join(f"{total / tally.valid:.2f}" for total in tally.scores)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
