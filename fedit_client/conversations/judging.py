"""`judge run` and `judge validate`: what goes where is said first, then asked, then told with its cost."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedit_client.console import Console
from fedit_client.judging.agreement import PUBLISHED, Agreement, Labelled, agreement, standing
from fedit_client.judging.answers import Contest, Question, contests, read_questions
from fedit_client.judging.court import Costs, Court, T, V
from fedit_client.judging.endpoint import Endpoint, OpenAIEndpoint, check_address, is_loopback
from fedit_client.judging.labels import LabelledPair, read_pairs, subset_of
from fedit_client.judging.prompts import OWN, OWN_TWO_TURNS, JudgePrompt, Mode, read_prompts
from fedit_client.judging.summaries import JudgeResult
from fedit_client.judging.tally import Tally, outcomes, tally
from fedit_client.judging.trials import Trial, Verdict, both_orders, by_choice, by_rating, by_scores, each_alone, paired
from fedit_client.judging.verdicts import VerdictFile
from fedit_client.records.contacts import note_judge
from fedit_protocol.errors import ConfigError, EvaluationError
from fedit_protocol.words import counted

URL_VARIABLE: Final = "OPENAI_BASE_URL"
KEY_VARIABLE: Final = "OPENAI_API_KEY"
_ON_THIS_MACHINE: Final = "http://127.0.0.1:11434/v1"
_NO_KEY: Final = "none"
_CHARS_PER_TOKEN: Final = 4
_NAMES: Final = ("1", "2")

Connect = Callable[["JudgeWishes"], Endpoint]


@dataclass(frozen=True)
class JudgeWishes:
    """Who judges, how, and where its replies are kept; prices are those of a million tokens."""

    judge: str
    out: Path
    url: str | None = None
    mode: Mode = Mode.PAIRWISE
    prompts: Path | None = None
    repeats: int = 1
    most: int | None = None
    at_once: int = 4
    temperature: float = 0.0
    max_tokens: int = 1024
    price_in: float | None = None
    price_out: float | None = None
    cache: Path | None = None
    """Where contacts are noted, for `explain network`."""

    @property
    def address(self) -> str:
        """The judge's address; raises ConfigError U002 if there is none, EvaluationError V010."""
        url = self.url or os.environ.get(URL_VARIABLE)
        if not url:
            raise ConfigError("nobody has said where the judge is", code="U002", where="command line",
                              fix=f"--url {_ON_THIS_MACHINE}", again=f"--url {_ON_THIS_MACHINE}")  # fmt: skip
        check_address(url)
        return url


@dataclass(frozen=True)
class Judged:
    """What a run has found."""

    tallies: tuple[Tally, ...]
    standing: str
    bill: "Bill"

    def as_data(self) -> dict[str, Any]:
        """The result, for programs."""
        results = [one.as_data() for one in self.tallies]
        return {"results": results, "judge": self.standing, **self.bill.as_data()}

    def lines(self) -> list[str]:
        """The result, for people."""
        results = [line for one in self.tallies for line in one.lines()]
        return [*results, *self.bill.lines(), f"judge: {self.standing}"]


@dataclass(frozen=True)
class Validated:
    """How far a judge agreed with people."""

    subset: str
    found: Agreement
    standing: str
    bill: "Bill"

    def as_data(self) -> dict[str, Any]:
        """The result, for programs."""
        return {"subset": self.subset, **self.found.as_data(), "judge": self.standing, **self.bill.as_data()}

    def lines(self) -> list[str]:
        """The result, for people, beside published judges."""
        return [agreement_line(self.subset, self.found), *self.bill.lines(), f"judge: {self.standing}",
                "published, agreement / same verdict in both orders:",
                *(f"  {name}: {figures}" for name, figures in PUBLISHED)]  # fmt: skip


@dataclass(frozen=True)
class Bill:
    """What all verdicts together have cost, and what of it this run; None where no prices were given."""

    whole: Costs
    new: Costs
    prices: tuple[float, float] | None

    def as_data(self) -> dict[str, Any]:
        """The counts, for programs."""
        prices = self.prices
        return {
            "replies_asked": self.new.asked,
            "replies_kept": self.whole.kept,
            "unanswered": self.new.unanswered,
            "prompt_tokens": self.whole.prompt_tokens,
            "completion_tokens": self.whole.completion_tokens,
            "cost": self.whole.price(*prices) if prices else None,
            "cost_of_this_run": self.new.price(*prices) if prices else None,
        }

    def lines(self) -> list[str]:
        """The counts, for people, and whether questions are still open."""
        if not self.new.unanswered:
            return [self.line()]
        left = counted(self.new.unanswered, "question")
        return [self.line(), f"no answer came to {left}, counted as not read: the same command asks again"]

    def line(self) -> str:
        """The counts, for people, in one line."""
        tokens = f"{self.whole.prompt_tokens:,} tokens asked, {self.whole.completion_tokens:,} answered"
        told = f"{counted(self.new.asked, 'new reply', 'new replies')}, {self.whole.kept} from the file; {tokens}"
        if self.prices is None:
            return f"cost: {told}; --price-in and --price-out turn that into money"
        return f"cost: {told}; {self.whole.price(*self.prices):.4f}, of which now {self.new.price(*self.prices):.4f}"


def connect(wishes: JudgeWishes) -> OpenAIEndpoint:
    """Return the judge of an address, with the key of the environment; raises EvaluationError V010, V011."""
    host = check_address(wishes.address)
    key = os.environ.get(KEY_VARIABLE, "")
    if not key and not is_loopback(host):
        raise EvaluationError(f"the judge at {host} wants a key, and none is set", code="V011",
                              fix=f"export {KEY_VARIABLE}=KEY")  # fmt: skip
    return OpenAIEndpoint(wishes.address, wishes.judge, key or _NO_KEY, wishes.temperature, wishes.max_tokens)


async def run_judge(
    console: Console,
    wishes: JudgeWishes,
    answers: Sequence[Path],
    ours: Sequence[str],
    theirs: str,
    to: Connect = connect,
) -> Judged:
    """Compare answers; raises ConfigError U002 without a yes, EvaluationError, StorageError."""
    found = contests(read_questions(answers), ours, theirs, wishes.most)
    court = _court(wishes, to(wishes))
    verdicts = await _heard(console, wishes, court, found)
    tallies = tuple(tally(found, verdicts))
    results = [
        JudgeResult(judge=wishes.judge, mode=wishes.mode, prompts_hash=prompts_hash(court.prompts), tally=one)
        for one in tallies
    ]
    court.file.add_results([result.model_dump(mode="json", by_alias=True) for result in results])
    return Judged(tallies, _standing(court), _bill(court, wishes))


async def validate_judge(
    console: Console, wishes: JudgeWishes, pairs: Sequence[LabelledPair], subset: str, to: Connect = connect
) -> Validated:
    """Have a judge judge what people have judged, and keep in the file how far they agree; raises like `run_judge`."""
    court = _court(wishes, to(wishes))
    pairs = pairs[: wishes.most]
    found = [_contest(pair, place) for place, pair in enumerate(pairs)]
    verdicts = await _heard(console, wishes, court, found)
    labelled = [
        Labelled(pair.label, tuple(verdict.choice if verdict else None for verdict in orders))
        for pair, contest in zip(pairs, found, strict=True)
        for orders in outcomes(contest, verdicts)
    ]
    agreed = agreement(labelled, wishes.repeats)
    told = standing(agreed, subset)
    court.file.add_validation({
        "judge": wishes.judge, "prompts_hash": prompts_hash(court.prompts), "subset": subset, "standing": told,
        **agreed.as_data(),
    })  # fmt: skip
    return Validated(subset, agreed, told, _bill(court, wishes))


def chosen_pairs(path: Path, subset: str | None) -> tuple[list[LabelledPair], str]:
    """Return the pairs of the subsets with this in their name, and what it is called; raises EvaluationError V020."""
    pairs = [pair for pair in read_pairs(path) if subset is None or subset in pair.subset]
    names = sorted({subset_of(pair) for pair in pairs})
    if not pairs:
        raise EvaluationError(f"no pair is of a subset called {subset}", code="V020", where=str(path),
                              fix=f"fedit-client judge agreement {path}")  # fmt: skip
    return pairs, names[0] if len(names) == 1 else ", ".join(names)


def agreement_line(name: str, found: Agreement) -> str:
    """Return how far a judge agrees, in one line."""
    ties = f", {_short(found.ties)} ties of its own" if found.ties else ""
    invalid = f", {_short(found.invalid)} without a verdict" if found.invalid else ""
    decided = f", {_short(found.agree)} of {_short(found.decided)} decided" if found.decided < found.pairs else ""
    kappa = "" if found.kappa is None else f"; kappa {found.kappa:.3f}"
    same = "" if found.consistency is None else f"; same verdict in both orders {100 * found.consistency:.1f} %"
    agreed = f"agrees on {_short(found.agree)} of {found.pairs} ({100 * found.share:.1f} %)"
    often = f", means of {found.repeats} times" if found.repeats > 1 else ""
    return f"{name}: {agreed}{often}{ties}{invalid}{decided}{same}{kappa}"


def _short(count: float) -> str:
    return f"{round(count, 2):g}"


def prompts_hash(prompts: Sequence[JudgePrompt]) -> str:
    """Return 16 hex digits that name a set of prompts by those for one turn: what a validation is made with."""
    asked = (prompt.digest for prompt in prompts if prompt.turns == 1)
    return hashlib.sha256("".join(asked).encode()).hexdigest()[:16]


def _court(wishes: JudgeWishes, endpoint: Endpoint) -> Court:
    own = [OWN[wishes.mode], OWN_TWO_TURNS[wishes.mode]]
    prompts = read_prompts(wishes.prompts, wishes.mode) if wishes.prompts else own
    return Court(endpoint, prompts, VerdictFile.open(wishes.out), wishes.at_once)


async def _heard(
    console: Console, wishes: JudgeWishes, court: Court, found: Sequence[Contest]
) -> Mapping[Trial, Verdict | None]:
    if court.prompts[0].single:
        grades = await _asked(console, wishes, court, each_alone(found, wishes.repeats), by_rating)
        return paired(found, wishes.repeats, grades)
    read = by_choice if wishes.mode is Mode.PAIRWISE else by_scores
    return await _asked(console, wishes, court, both_orders(found, wishes.repeats), read)


async def _asked(
    console: Console, wishes: JudgeWishes, court: Court, trials: Sequence[T], read: Callable[[T, str], V | None]
) -> Mapping[T, V | None]:
    if left := court.open_questions(trials):
        _tell_where(console, wishes, left, court.question_chars(trials))
    told = [-1]

    def tell(done: int, of: int) -> None:
        tenth = 10 * done // of
        if tenth > told[0]:
            told[0] = tenth
            console.say(f"  judged {done} of {of}", style="dim")

    try:
        return await court.judge(trials, read, tell)
    except BaseException:
        _tell_what_was_paid(console, _bill(court, wishes))
        raise
    finally:
        await court.endpoint.close()


def _tell_where(console: Console, wishes: JudgeWishes, left: int, chars: int) -> None:
    """Say what leaves and where to; without a yes nothing does, unless the judge is on this machine."""
    host = check_address(wishes.address)
    size = f"{counted(left, 'request')} of about {chars // _CHARS_PER_TOKEN:,} tokens in all"
    if is_loopback(host):
        console.say(f"asking {wishes.judge} on this machine: {size}", style="dim")
        return
    console.warn(f"questions and answers leave this machine: {size} go to {host}, whose owner can read and keep them")
    if not console.confirm(f"send them to {host}?", flag="--yes"):
        raise EvaluationError("nothing was sent", code="V017", fix="say yes, or use a judge on this machine")
    if wishes.cache is not None:
        note_judge(wishes.cache, host)


def _tell_what_was_paid(console: Console, bill: Bill) -> None:
    """Say what a run that ends early has cost, if it has had any reply; in JSON it is among the warnings."""
    if bill.new.asked or bill.whole.kept:
        console.notice(f"{bill.line()}; all of it is kept, and the same command goes on from there")


def _standing(court: Court) -> str:
    """What the file knows of this judge with these prompts."""
    model, prompts = court.endpoint.identity["model"], prompts_hash(court.prompts)
    for row in reversed(court.file.validations):
        if row["judge"] == model and row["prompts_hash"] == prompts:
            return f"{row['standing']} ({row['subset']}: agreement {100 * row['agreement']:.1f} %)"
    return "not validated: fedit-client judge validate, with the same --judge, --mode, --prompts and --out, does that"


def _bill(court: Court, wishes: JudgeWishes) -> Bill:
    given = wishes.price_in is not None or wishes.price_out is not None
    return Bill(court.costs, court.new, (wishes.price_in or 0.0, wishes.price_out or 0.0) if given else None)


def _contest(pair: LabelledPair, place: int) -> Contest:
    answers = dict(zip(_NAMES, pair.answers, strict=True))
    return Contest(Question(f"{pair.subset}/{pair.name}/{place}", "", pair.question, answers), *_NAMES)
