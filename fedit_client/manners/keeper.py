"""The keeper of a gate: looks at the owner's wish every second and at the machine every five, and says what changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from fedit_client.events import Event, EventKind
from fedit_client.home.paths import Paths
from fedit_client.manners.control import Activity, NowFile, Wish, read_wish
from fedit_client.manners.facts import FactSource
from fedit_client.manners.gate import Gate
from fedit_client.manners.live import LivePolite
from fedit_client.manners.rules import OWNER, Facts, Hold, Rules, Verdict, owners_pause
from fedit_client.manners.settings import PoliteSettings
from fedit_client.records.pace import Pace, today
from fedit_client.task_groups import task_group
from fedit_protocol.errors import StorageError

LOOK_EVERY_S: Final = 1.0
FACTS_EVERY_S: Final = 5.0
_SAVE_EVERY_S: Final = 60.0

Clock = Callable[[], datetime]
Emit = Callable[[Event], None]


@dataclass
class Keeper:
    """Opens and closes one gate. A run's events go through its `emit`, which gives them times and passes them `out`."""

    paths: Paths
    gate: Gate
    rules: Rules
    source: FactSource
    now_file: NowFile
    pace: Pace
    clock: Clock
    out: Emit
    stop_at: datetime | None = None
    """When the owner wants no further round to begin (`run --until`)."""
    device: str = "cpu"
    """What trains here, once that is known."""
    live: LivePolite | None = None
    """The owner's settings, looked at before the machine; None where they never change."""
    _facts: Facts = field(default_factory=Facts)
    _facts_at: datetime | None = None
    _saved_at: datetime | None = None
    _wish: tuple[object, Wish] = (None, Wish())

    def emit(self, event: Event) -> None:
        """Pass an event on, with the time that is left, and note it for `status`."""
        now = self.clock()
        seen = self.pace.see(event, today(now))
        self.now_file.tell(seen, now.timestamp())
        self.out(seen)

    def use(self, device: str, name: str, total_bytes: int = 0) -> None:
        """Say what trains here and how much memory it has, 0 if nobody knows; a GPU is then looked at, too."""
        self.device = device
        total = total_bytes / 1e6 if total_bytes else None
        self.now_file.change(self.clock().timestamp(), device=device, device_name=name, memory_total_mb=total)

    def follow(self, take: Callable[[PoliteSettings], None]) -> None:
        """Call `take` with the owner's settings now, and again whenever they change."""
        if self.live is not None:
            self.live.follow(take)

    async def look(self) -> None:
        """Look once: at the wish, at the machine if that is due; then set the gate and say what changed."""
        now = self.clock()
        for words in self.live.look() if self.live else ():
            self._facts_at = None  # what is looked at may be something else now
            self.emit(Event(EventKind.NOTICE, words))
        if self._facts_at is None or not 0 <= (now - self._facts_at).total_seconds() < FACTS_EVERY_S:
            self._facts, self._facts_at = await asyncio.to_thread(self.source.read, self.device), now
        facts = replace(self._facts, trained_today_s=self.pace.trained_today_s(today(now)))
        verdict, wish = self.rules.judge(facts, now), self._read_wish()
        if wish.holds(now.timestamp()):
            until = None if wish.until is None else datetime.fromtimestamp(wish.until, UTC)
            verdict = replace(verdict, holds=(owners_pause(until, now, self.rules.zone), *verdict.holds))
        over = self.stop_at is not None and now >= self.stop_at
        self._set(verdict, finishing=over or wish.finish == self.now_file.now.run, now=now)
        self.now_file.write(now.timestamp())
        if self._saved_at is None or (now - self._saved_at).total_seconds() >= _SAVE_EVERY_S:
            self._saved_at = now
            self.pace.save()

    def _read_wish(self) -> Wish:
        """The owner's wish; a file that cannot be read holds everything up, for it may have been a pause."""
        try:
            found = self.paths.control_file.stat()
            stamp: object = (found.st_mtime_ns, found.st_ino, found.st_size)
        except OSError:
            stamp = None
        if stamp != self._wish[0]:
            try:
                self._wish = stamp, read_wish(self.paths)
            except StorageError:
                self._wish = stamp, Wish(paused=True)
        return self._wish[1]

    def _set(self, verdict: Verdict, *, finishing: bool, now: datetime) -> None:
        before, was_throttled, was_finishing = self.gate.hold, self.gate.throttle, self.gate.finishing
        self.gate.set(verdict, finishing=finishing)
        hold, throttle = verdict.hold, verdict.throttle
        if hold != before:
            self._tell_hold(hold, now)
        if throttle != was_throttled:
            words = f"half speed: {throttle.text}" if throttle else "full speed again"
            self.now_file.change(now.timestamp(), throttled=throttle.text if throttle else "")
            self.emit(Event(EventKind.NOTICE, words))
        if finishing != was_finishing:
            in_round = self.now_file.now.round_no is not None
            text = f"stops after round {self.now_file.now.round_no}" if in_round else "stops now, for no round is open"
            self.now_file.change(now.timestamp(), finishing=finishing)
            self.emit(Event(EventKind.NOTICE, text if finishing else "does not stop any more: fedit-client resume"))

    def _tell_hold(self, hold: Hold | None, now: datetime) -> None:
        round_no = self.now_file.now.round_no
        if hold is None:
            activity = Activity.WAITING if round_no is None else Activity.ROUND
            told = {"activity": activity, "reason": "checking in" if round_no is None else "", "rule": ""}
            self.now_file.change(now.timestamp(), paused_until=None, **told)
            self.emit(Event(EventKind.RESUMED, "goes on", round_no=round_no))
            return
        until = None if hold.until is None else int(hold.until.timestamp())
        self.now_file.change(
            now.timestamp(), activity=Activity.PAUSED, reason=hold.text, rule=hold.rule, paused_until=until
        )
        setting = "" if hold.rule == OWNER else f"  (polite.{hold.rule})"
        self.emit(Event(EventKind.PAUSED, f"paused: {hold.text}{setting}", round_no=round_no))


@asynccontextmanager
async def keeping(keeper: Keeper) -> AsyncIterator[Keeper]:
    """Look once before anything else, then every second while the block runs; a failure of the keeper ends that."""
    await keeper.look()

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await keeper.look()

    try:
        async with task_group() as group:
            watching = group.create_task(watch())
            yield keeper
            watching.cancel()
    finally:
        with suppress(StorageError):
            keeper.pace.save()
