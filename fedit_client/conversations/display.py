"""A run as it is seen: one bar per stage on a terminal, one line per tenth without one, NDJSON for programs."""

import logging
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fedit_client.console import Console
from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.records.pace import about
from fedit_client.running.standing import WHAT_NOW

_LOG = logging.getLogger(__name__)
_TENTHS = 10
_BETWEEN_ROUNDS = frozenset(
    {EventKind.ROUND_OPENED, EventKind.ROUND_COMMITTED, EventKind.ROUND_LOST, EventKind.WAITING}
)


class RunDisplay:
    """Shows the events of a run; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._bar: tuple[RoundStage, TaskID] | None = None
        self._tenth: tuple[RoundStage | None, int] = (None, -1)
        self._still = False
        self.round_no: int | None = None
        """The round that this device is in; None between rounds."""

    def __enter__(self) -> Self:
        if self._console.animated:
            columns = (TextColumn("  {task.description:<9}"), BarColumn(24), TextColumn("{task.fields[words]}"))
            self._bars = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console.out)
            self._bars.start()
        return self

    def hold_still(self, question: str) -> None:
        """Show a question and no bars, so that its answer can be typed."""
        self._still = True
        if self._bars:
            self._bars.stop()
        self._console.say(f"? {question}")

    def move_again(self) -> None:
        """Go on showing bars."""
        self._still = False
        if self._bars:
            self._bars.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_bar()
        if self._bars:
            self._bars.stop()

    def show(self, event: Event) -> None:
        """Show one event, and write it down."""
        if event.kind is not EventKind.PROGRESS:
            _LOG.info("%s", event.text)
        if event.kind in _BETWEEN_ROUNDS:
            self.round_no = event.round_no if event.kind is EventKind.ROUND_OPENED else None
        if self._console.json:
            self._console.event(event_fields(event))
        elif self._still and event.kind in {EventKind.STAGE, EventKind.PROGRESS}:
            return
        elif self._bars and event.kind in {EventKind.STAGE, EventKind.PROGRESS}:
            self._move_bar(self._bars, event)
        elif event.kind is EventKind.PROGRESS:
            self._one_line_per_tenth(event)
        else:
            self._line(event)

    def _line(self, event: Event) -> None:
        match event.kind:
            case EventKind.ROUND_COMMITTED | EventKind.TASK_FINISHED:
                self._drop_bar()
                self._console.done(event.text)
                if event.kind is EventKind.TASK_FINISHED and event.adapter_version:
                    self._console.say(f"  {WHAT_NOW}")
            case EventKind.CONNECTION_LOST | EventKind.ROUND_LOST:
                self._drop_bar()
                self._console.warn(event.text)
            case EventKind.STAGE:
                self._console.say(f"  {event.stage}: {event.text}{_left(event)}")
            case EventKind.PAUSED:
                self._drop_bar()
                self._console.say(event.text, style="yellow")
            case _:
                self._console.say(event.text)

    def _one_line_per_tenth(self, event: Event) -> None:
        tenth = (event.stage, int((event.progress or 0.0) * _TENTHS))
        if event.progress and tenth != self._tenth:  # of nothing done yet the stage's own line has told
            self._tenth = tenth
            self._console.say(f"  {event.stage}: {event.text}{_left(event)}")

    def _move_bar(self, bars: Progress, event: Event) -> None:
        stage = event.stage or RoundStage.WAIT
        if self._bar is None or self._bar[0] is not stage:
            self._drop_bar()
            self._bar = (stage, bars.add_task(str(stage), total=None, words="", left=""))
        total = 1.0 if event.progress is not None else None
        bars.update(self._bar[1], total=total, completed=event.progress or 0.0, words=event.text, left=_left(event))

    def _drop_bar(self) -> None:
        """A finished stage leaves one plain line behind, so that the screen stays short."""
        if self._bars and self._bar:
            stage, task = self._bar
            words = next((str(shown.fields["words"]) for shown in self._bars.tasks if shown.id == task), "")
            self._bars.remove_task(task)
            self._bar = None
            self._console.say(f"  {stage}: {words}", style="dim")


def _left(event: Event) -> str:
    """The times that are left, as far as this machine has a history of them."""
    if event.stage_eta_s is None:
        return ""
    whole = "" if event.eta_s is None else f", the round {about(event.eta_s)}"
    return f" · {about(event.stage_eta_s)} left{whole}"


def event_fields(event: Event) -> dict[str, Any]:
    """Return an event as JSON fields; what it does not have is left out."""
    fields = {
        "kind": event.kind.value,
        "text": event.text,
        "progress": event.progress,
        "stage": event.stage.value if event.stage else None,
        "round": event.round_no,
        "loss": event.loss,
        "adapter_version": event.adapter_version,
        "tokens_per_second": event.tokens_per_second,
        "stage_eta_s": event.stage_eta_s,
        "eta_s": event.eta_s,
    }
    return {name: value for name, value in fields.items() if value is not None}
