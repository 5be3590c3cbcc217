"""How long each stage takes on this machine, from its own last rounds, and how long it has trained today.

Kept in `pace.json`, which never leaves. A stage's time is without its pauses. Only committed rounds teach anything.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.home.durable import translating, write_atomic

_KEPT_ROUNDS: Final = 7
_SAID_AFTER: Final = 0.05
_AFTER_WAIT: Final = tuple(stage for stage in RoundStage if stage not in {RoundStage.WAIT, RoundStage.DONE})
_WORK: Final = frozenset({RoundStage.PREPARE, RoundStage.TRAIN})


class _History(BaseModel):
    model_config = ConfigDict(extra="ignore")

    day: str = ""
    trained_s: float = 0.0
    """On that day, by the clock on the wall."""
    tasks: dict[str, dict[RoundStage, list[float]]] = Field(default_factory=dict)
    """`TASK@N` → stage → seconds, oldest first."""


class Pace:
    """Watches a run's events and gives them the time that is left; `clock` counts seconds and never jumps."""

    def __init__(self, path: Path, task: str, clock: Callable[[], float]) -> None:
        """Read what is known; a file that cannot be read counts as nothing known, for it holds nothing of worth."""
        self._path, self._task, self._clock = path, task, clock
        self._history = _read(path)
        self._stage: RoundStage | None = None
        self._progress: float | None = None
        self._round: dict[RoundStage, float] = {}
        """Seconds of this round's stages so far."""
        self._mark = clock()
        self._paused = False

    def see(self, event: Event, today: str) -> Event:
        """Note an event and return it with the seconds that are left of its stage and of the round."""
        self._count(today)
        match event.kind:
            case EventKind.PAUSED:
                self._paused = True
            case EventKind.RESUMED:
                self._paused = False
            case EventKind.ROUND_OPENED:
                self._stage, self._round = RoundStage.WAIT, {}
            case EventKind.ROUND_COMMITTED:
                self._learn()
                self._stage, self._round = None, {}
            case EventKind.ROUND_LOST:
                self._stage, self._round = None, {}
            case EventKind.STAGE | EventKind.PROGRESS if event.stage:
                self._stage, self._progress = event.stage, event.progress
                stage_s = self._stage_left()
                return replace(event, stage_eta_s=stage_s, eta_s=self._round_left(stage_s))
            case _:
                pass
        return event

    def trained_today_s(self, today: str) -> float:
        """Return how long this machine has trained today; `today` is the date on the wall."""
        self._count(today)
        return self._history.trained_s

    def save(self) -> None:
        """Write what was learned; raises StorageError."""
        write_atomic(self._path, self._history.model_dump_json().encode() + b"\n", flush=False)

    def _count(self, today: str) -> None:
        """Count the time since the last event to the stage that it was spent in."""
        now = self._clock()
        spent, self._mark = max(now - self._mark, 0.0), now
        if today != self._history.day:
            self._history.day, self._history.trained_s = today, 0.0
        if self._stage and not self._paused:
            self._round[self._stage] = self._round.get(self._stage, 0.0) + spent
            if self._stage in _WORK:
                self._history.trained_s += spent

    def _learn(self) -> None:
        known = self._history.tasks.setdefault(self._task, {})
        for stage, seconds in self._round.items():
            known[stage] = [*known.get(stage, []), round(seconds, 3)][-_KEPT_ROUNDS:]
        self.save()

    def _usual_s(self, stage: RoundStage) -> float | None:
        seen = self._history.tasks.get(self._task, {}).get(stage)
        return median(seen) if seen else None

    def _stage_left(self) -> float | None:
        """By its own progress once that says something, else by what it usually takes."""
        if self._stage is None:
            return None
        spent = self._round.get(self._stage, 0.0)
        if self._stage is RoundStage.TRAIN and self._progress and self._progress >= _SAID_AFTER:
            return spent / self._progress * (1 - self._progress)
        usual = self._usual_s(self._stage)
        return None if usual is None else max(usual - spent, 0.0)

    def _round_left(self, stage_s: float | None) -> float | None:
        """Until this device's part is done; None as long as a stage that is still to come was never seen here."""
        if stage_s is None or not self._history.tasks.get(self._task):
            return None
        seen = self._history.tasks[self._task]
        later = [stage for stage in _AFTER_WAIT if stage in seen and stage not in {*self._round, self._stage}]
        return stage_s + sum(median(seen[stage]) for stage in later)


def today(now: datetime) -> str:
    """The date on the wall at a moment (aware), in this machine's zone."""
    return now.astimezone().date().isoformat()


def about(seconds: float) -> str:
    """A time that is left, as a person would say it."""
    return "less than a minute" if seconds < 10 else f"about {passed(seconds)}"


def passed(seconds: float) -> str:
    """A time, as a person would say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _read(path: Path) -> _History:
    with translating(path):
        raw = path.read_bytes() if path.exists() else b"{}"
    try:
        return _History.model_validate_json(raw)
    except ValidationError:
        return _History()
