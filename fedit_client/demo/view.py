"""Three clients at once: one bar each on a terminal, short lines without one."""

from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedit_client.console import Console
from fedit_client.events import EventKind

_TOLD = {
    EventKind.ROUND_OPENED,
    EventKind.ROUND_COMMITTED,
    EventKind.ROUND_LOST,
    EventKind.CONNECTION_LOST,
    EventKind.TASK_FINISHED,
    EventKind.STAGE,
}
_TENTHS = 5


class DemoView:
    """Shows the NDJSON events of several clients; use as a context manager."""

    def __init__(self, console: Console, names: list[str]) -> None:
        self._console = console
        self._names = names
        self._bars: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._told: dict[str, tuple[object, int]] = {}

    def __enter__(self) -> Self:
        if self._console.out.is_terminal and not (self._console.quiet or self._console.json):
            columns = (TextColumn("  {task.description:<9}"), BarColumn(20), TextColumn("{task.fields[words]}"))
            self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console.out)
            self._rows = {name: self._bars.add_task(name, total=None, words="starting") for name in self._names}
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, name: str, event: dict[str, Any]) -> None:
        """Show one event of one client; what is not an event is passed over."""
        if "kind" not in event:
            return
        if self._console.json:
            self._console.event({"client": name, **{key: event[key] for key in event if key not in {"schema", "time"}}})
        elif self._bars:
            done = event.get("progress")
            words = f"{event.get('stage') or event['kind']}: {event.get('text', '')}"
            total = 1.0 if done is not None else None
            self._bars.update(self._rows[name], total=total, completed=done or 0.0, words=words[:70])
        else:
            self._line(name, event)

    def _line(self, name: str, event: dict[str, Any]) -> None:
        stage, done = event.get("stage"), event.get("progress")
        mark = (stage, int((done or 0.0) * _TENTHS))
        if event["kind"] in _TOLD or (stage == "train" and mark != self._told.get(name)):
            self._told[name] = mark
            self._console.say(f"  {name:<9} {stage or event['kind']}: {event.get('text', '')}")
