"""Facts about a machine and its owner's settings → whether to train now, and if not, why. Pure: times come in.

A reason begins at once, but a busy GPU only after 20 s, so that opening a photo stops nothing; every reason that was
read from the machine ends after 20 s without it, so that training does not stutter.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final

from fedit_client.manners.settings import PoliteSettings

STEADY_S: Final = 20.0
GPU_SHARE: Final = 0.15
GPU_MEMORY_MB: Final = 600.0
ACTIVE_S: Final = 180.0
_COOLER_C: Final = 5.0
OWNER: Final = "owner"


@dataclass(frozen=True)
class GpuUse:
    """What programs other than ours take of a GPU: share 0 to 1 (None: not known), memory in MB, the largest's name."""

    share: float | None
    memory_mb: float
    program: str = ""


@dataclass(frozen=True)
class Facts:
    """What a machine is like at a moment; None where nothing here can tell."""

    on_battery: bool | None = None
    gpu_others: GpuUse | None = None
    fullscreen: str | None = None
    """The program that fills the screen; empty: none does."""
    idle_s: float | None = None
    """How long nobody has used mouse or keyboard."""
    temperature_c: float | None = None
    sensor: str = "CPU"
    metered: bool | None = None
    disk_gb: float | None = None
    trained_today_s: float = 0.0


@dataclass(frozen=True)
class Hold:
    """Why nothing is trained: the setting that decided (or `owner`), words, and when it ends by itself, if known."""

    rule: str
    text: str
    until: datetime | None = None


@dataclass(frozen=True)
class Verdict:
    """What is allowed at this moment: nothing while `holds` names a reason, half speed while `throttle` does."""

    holds: tuple[Hold, ...] = ()
    throttle: Hold | None = None

    @property
    def hold(self) -> Hold | None:
        """The reason that is told; the first one where there are several."""
        return self.holds[0] if self.holds else None


@dataclass
class Rules:
    """The rules of one machine, with their memory of what was seen when."""

    polite: PoliteSettings
    zone: tzinfo | None = None
    """Of the clock on the wall; None: this machine's."""
    _since: dict[str, datetime] = field(default_factory=dict)
    """Rule → when its reason was first seen, without a gap."""
    _seen: dict[str, tuple[datetime, Hold]] = field(default_factory=dict)
    """Rule → when its reason was last seen, and what it was."""

    def change(self, polite: PoliteSettings) -> None:
        """Go by other settings, at once: what held by those of before is forgotten."""
        self.polite = polite
        self._since.clear()
        self._seen.clear()

    def judge(self, facts: Facts, now: datetime) -> Verdict:
        """Return what is allowed at `now` (aware), given what the machine is like."""
        found = {hold.rule: hold for hold in self._from_machine(facts)}
        for rule in set(self._since) - set(found):
            del self._since[rule]
        for rule, hold in found.items():
            self._since.setdefault(rule, now)
            if rule != "gpu_busy" or rule in self._seen or (now - self._since[rule]).total_seconds() >= STEADY_S:
                self._seen[rule] = now, hold
        self._seen = {rule: seen for rule, seen in self._seen.items() if (now - seen[0]).total_seconds() < STEADY_S}
        lasting = {rule: hold for rule, (_, hold) in self._seen.items()}
        throttle = lasting.pop("user_active", None) if self.polite.user_active == "throttle" else None
        in_order = [lasting[rule] for rule in _ORDER if rule in lasting]
        return Verdict((*self._from_clock(facts, now), *in_order), throttle)

    def _from_clock(self, facts: Facts, now: datetime) -> Iterator[Hold]:
        """Yield what the owner's clock says; it needs no patience, for it does not flicker."""
        opening = self.polite.hours.next_opening(now, self.zone)
        if opening is not None:
            text = f"outside your hours, {self.polite.hours.text()}; goes on {_when(opening, now, self.zone)}"
            yield Hold("schedule", text, opening)
        most = self.polite.max_hours_per_day
        if most is not None and facts.trained_today_s >= most * 3600:
            midnight = _next_midnight(now, self.zone)
            yield Hold("max_hours_per_day", f"trained {facts.trained_today_s / 3600:.1f} h today, and {most:g} h "
                       "is your limit; goes on at midnight", midnight)  # fmt: skip

    def _from_machine(self, facts: Facts) -> Iterator[Hold]:
        polite = self.polite
        if facts.on_battery and polite.on_battery == "pause":
            yield Hold("on_battery", "this machine runs on its battery")
        if facts.fullscreen and polite.fullscreen == "pause":
            yield Hold("fullscreen", f"a program fills the screen ({facts.fullscreen})")
        if facts.idle_s is not None and facts.idle_s < ACTIVE_S and polite.user_active != "ignore":
            yield Hold("user_active", "somebody is using this machine")
        if polite.gpu_busy == "pause" and facts.gpu_others and _is_busy(facts.gpu_others):
            yield Hold("gpu_busy", f"another program uses the GPU ({_use_text(facts.gpu_others)})")
        # Once too hot it has to cool down by a few degrees, or it would start and stop all the time.
        cooler_c = polite.max_temp_c - (_COOLER_C if "max_temp_c" in self._seen else 0.0)
        if facts.temperature_c is not None and facts.temperature_c > cooler_c:
            limit = f"{polite.max_temp_c:g} °C is your limit"
            cools = "" if facts.temperature_c > polite.max_temp_c else f"; it cools down to {cooler_c:g} °C first"
            yield Hold("max_temp_c", f"the {facts.sensor} is at {facts.temperature_c:.0f} °C, and {limit}{cools}")
        if facts.metered and polite.metered_network == "pause":
            yield Hold("metered_network", "the network connection is metered")
        if facts.disk_gb is not None and facts.disk_gb > polite.max_disk_gb:
            text = f"this client keeps {facts.disk_gb:.1f} GB on the disk, and {polite.max_disk_gb:g} GB is your limit"
            yield Hold("max_disk_gb", text)


_ORDER: Final = (
    "on_battery", "fullscreen", "user_active", "gpu_busy", "max_temp_c", "metered_network", "max_disk_gb",
)  # fmt: skip
"""What is told first where several hold."""


def owners_pause(until: datetime | None, now: datetime, zone: tzinfo | None = None) -> Hold:
    """Return the reason of a pause that the owner asked for."""
    if until is None:
        return Hold(OWNER, "you paused it; fedit-client resume goes on")
    return Hold(OWNER, f"you paused it; goes on {_when(until, now, zone)}, or with fedit-client resume", until)


def _is_busy(others: GpuUse) -> bool:
    return (others.share or 0.0) > GPU_SHARE or others.memory_mb > GPU_MEMORY_MB


def _use_text(others: GpuUse) -> str:
    share = others.share or 0.0
    much = f"{share:.0%}".replace("%", " %") if share > GPU_SHARE else f"{others.memory_mb:.0f} MB of its memory"
    return f"{others.program}, {much}" if others.program else much


def _when(moment: datetime, now: datetime, zone: tzinfo | None) -> str:
    local, today = moment.astimezone(zone), now.astimezone(zone).date()
    if local.date() == today:
        return f"at {local:%H:%M}"
    day = "tomorrow" if local.date() == today + timedelta(days=1) else f"on {local:%A}"
    return f"{day} at {local:%H:%M}" if (local.date() - today).days < 7 else f"on {local:%Y-%m-%d at %H:%M}"


def _next_midnight(now: datetime, zone: tzinfo | None) -> datetime:
    day = now.astimezone(zone).date() + timedelta(days=1)
    midnight = datetime.combine(day, time())
    return (midnight.replace(tzinfo=zone) if zone else midnight).astimezone(UTC)
