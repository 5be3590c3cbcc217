"""How a command speaks to the running client of the same home: two small private files, and no port.

`control.json` is what the owner wishes: only commands write it, and the running client looks at it once a second. It
outlives both, so a pause that was asked for while nothing ran is kept by the next run.

`now.json` is what the running client does: only that client writes it, at most once a second. It counts while the lock
of the home is held by the process that it names; what a killed client left behind is recognised by that, and ignored.

Both are replaced in one step, so a crash on either side leaves the old or the new one.
"""

import secrets
from enum import StrEnum
from typing import Final, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.lock import is_held
from fedit_client.home.paths import Paths
from fedit_protocol.errors import MembershipError, StorageError

_WRITE_EVERY_S: Final = 1.0


class Wish(BaseModel):
    """What the owner wants of the client on this home; times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    paused: bool = False
    until: int | None = None
    """When a pause ends by itself; None: when the owner says `resume`."""
    finish: str = ""
    """The run that shall complete its round and then stop; no other run feels meant."""
    asked_at: int = 0

    def holds(self, now_s: float) -> bool:
        """Whether the owner wants nothing to be trained at this moment."""
        return self.paused and (self.until is None or now_s < self.until)


class Activity(StrEnum):
    """What a running client is at."""

    STARTING = "starting"
    WAITING = "waiting"
    PAUSED = "paused"
    ROUND = "round"


class Now(BaseModel):
    """What the running client does at this moment; times are Unix seconds, durations seconds, memory MB of 10⁶ bytes.

    New fields may be added; an unknown one is ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    run: str
    pid: int
    started_at: float
    written_at: float
    activity: Activity = Activity.STARTING
    since: float
    """When this activity began."""
    text: str = ""
    """The newest sentence for people."""
    reason: str = ""
    """Why nothing is trained, in words; empty while a round goes on."""
    rule: str = ""
    """What decided it: `owner`, a key of `[polite]` such as `on_battery`, `server`, `network`, or empty."""
    paused_until: int | None = None
    finishing: bool = False
    """Whether it stops after this round."""
    throttled: str = ""
    """Why it trains at half speed, in words."""
    round_no: int | None = None
    stage: RoundStage | None = None
    progress: float | None = None
    """0 to 1 within the stage."""
    stage_eta_s: float | None = None
    eta_s: float | None = None
    """Until this device's part of the round is done, from its own history; None where it has none yet."""
    rounds: int = 0
    """Committed in this run."""
    loss: float | None = None
    tokens_per_second: float | None = None
    device: str = ""
    """`cpu`, `cuda:0`, …"""
    device_name: str = ""
    gpu_share: float | None = None
    """The share of the model that lies on a GPU, 0 to 1."""
    memory_used_mb: float | None = None
    memory_reserved_mb: float | None = None
    memory_total_mb: float | None = None
    watts: float | None = None

    def after(self, event: Event, now_s: float) -> "Now":
        """Return what is true after an event."""
        new: dict[str, object] = {"text": event.text}
        match event.kind:
            case EventKind.WAITING:
                new |= {"activity": Activity.WAITING, "reason": event.text, "rule": "server", **_NO_ROUND}
            case EventKind.CONNECTION_LOST if self.round_no is None:
                new |= {"activity": Activity.WAITING, "reason": event.text, "rule": "network"}
            case EventKind.CONNECTED if self.rule == "network":
                new |= {"reason": event.text, "rule": "server"}
            case EventKind.ROUND_OPENED:
                new |= {"activity": Activity.ROUND, "reason": "", "rule": "", "round_no": event.round_no}
            case EventKind.STAGE | EventKind.PROGRESS:
                new |= {"stage": event.stage, "progress": event.progress, "loss": event.loss or self.loss}
                new |= {"stage_eta_s": event.stage_eta_s, "eta_s": event.eta_s}
                new["tokens_per_second"] = event.tokens_per_second
                if event.use is not None:
                    new["gpu_share"] = event.use.gpu_share
                    new["memory_used_mb"] = event.use.used_bytes / 1e6
                    new["memory_reserved_mb"] = event.use.reserved_bytes / 1e6
                    new["watts"] = event.use.watts
            case EventKind.ROUND_COMMITTED:
                new |= {"activity": Activity.WAITING, "reason": event.text, "rule": "server", **_NO_ROUND}
                new["rounds"] = self.rounds + 1
            case EventKind.ROUND_LOST:
                new |= {"activity": Activity.WAITING, "reason": event.text, "rule": "server", **_NO_ROUND}
            case _:
                pass
        if self.activity is Activity.PAUSED:  # what pauses it is told until that ends, whatever else goes on
            new = {name: value for name, value in new.items() if name not in {"activity", "reason", "rule"}}
        return self.changed(now_s, **new)

    def changed(self, now_s: float, **fields: object) -> "Now":
        """Return this with other fields; `since` moves when the activity changes."""
        since = self.since if fields.get("activity", self.activity) is self.activity else now_s
        return self.model_copy(update={"since": since, **fields})


_NO_ROUND: Final[dict[str, object]] = {
    "round_no": None, "stage": None, "progress": None, "stage_eta_s": None, "eta_s": None, "loss": None,
    "tokens_per_second": None,
}  # fmt: skip


class NowFile:
    """The running client's hand on `now.json`; use as a context manager, inside the lock."""

    def __init__(self, paths: Paths, pid: int, now_s: float) -> None:
        self._path, self._dirty, self._written = paths.now_file, True, 0.0
        self.now = Now(run=secrets.token_hex(8), pid=pid, started_at=now_s, written_at=now_s, since=now_s)

    def __enter__(self) -> Self:
        self.write(self.now.started_at)
        return self

    def __exit__(self, *_: object) -> None:
        with translating(self._path):
            self._path.unlink(missing_ok=True)

    def tell(self, event: Event, now_s: float) -> None:
        """Note an event; written at once if the last time is a second ago, else by the next `write`."""
        self._take(self.now.after(event, now_s), now_s)

    def change(self, now_s: float, **fields: object) -> None:
        """Note other facts, such as the device's."""
        self._take(self.now.changed(now_s, **fields), now_s)

    def write(self, now_s: float) -> None:
        """Write what was noted, if anything was; called every second. Raises StorageError."""
        if self._dirty:
            self.now = self.now.model_copy(update={"written_at": now_s})
            write_atomic(self._path, self.now.model_dump_json().encode() + b"\n", flush=False)
            self._dirty, self._written = False, now_s

    def _take(self, now: Now, now_s: float) -> None:
        self._dirty = self._dirty or now != self.now
        self.now = now
        if not 0 <= now_s - self._written < _WRITE_EVERY_S:
            self.write(now_s)


def read_now(paths: Paths) -> Now | None:
    """Return what the client that runs on this home does, or None if none runs or it has only just started."""
    if not is_held(paths.lock_file):
        return None
    with translating(paths.now_file):
        raw = paths.now_file.read_bytes() if paths.now_file.exists() else b""
    try:
        now = Now.model_validate_json(raw)
    except ValidationError:
        return None
    # The lock is held, maybe by another process than the one that left this file behind.
    return now if psutil.pid_exists(now.pid) else None


def read_wish(paths: Paths) -> Wish:
    """Return what the owner wishes; raises StorageError S013 for a file that is not ours."""
    with translating(paths.control_file):
        if not paths.control_file.exists():
            return Wish()
        raw = paths.control_file.read_bytes()
    try:
        return Wish.model_validate_json(raw)
    except ValidationError as error:
        raise StorageError("the file with your pause cannot be read", code="S013", where=str(paths.control_file),
                           fix="fedit-client resume") from error  # fmt: skip


def ask_pause(paths: Paths, now_s: float, until_s: float | None = None) -> Wish:
    """Ask for a pause, until a time or until `ask_resume`; kept while nothing runs. Raises StorageError."""
    until = None if until_s is None else round(until_s)
    return _asked(paths, Wish(paused=True, until=until, finish=_finish(paths), asked_at=int(now_s)))


def ask_resume(paths: Paths, now_s: float) -> Wish:
    """Take back a pause and a `finish`. Raises StorageError."""
    return _asked(paths, Wish(asked_at=int(now_s)))


def ask_finish(paths: Paths, now_s: float) -> Wish:
    """Ask the running client to complete its round and then stop; ends a pause, for a paused round would not end.

    Raises MembershipError J006 if no client runs: nothing is remembered then, so that no later run stops by surprise.
    """
    now = read_now(paths)
    if now is None:
        raise MembershipError("no client runs on this folder, so there is no round to finish", code="J006",
                              where=str(paths.lock_file.parent), fix="fedit-client status")  # fmt: skip
    return _asked(paths, Wish(finish=now.run, asked_at=int(now_s)))


def _finish(paths: Paths) -> str:
    try:
        return read_wish(paths).finish
    except StorageError:
        return ""


def _asked(paths: Paths, wish: Wish) -> Wish:
    write_atomic(paths.control_file, wish.model_dump_json().encode() + b"\n")
    return wish
