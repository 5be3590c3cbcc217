"""What a client on this home does at this moment, in words: at work, or why not."""

from datetime import UTC, datetime

from fedit_client.manners.control import Activity, Now, Wish
from fedit_client.manners.rules import OWNER, owners_pause
from fedit_client.records.pace import about, passed


def doing_lines(now: Now | None, wish: Wish, moment: datetime) -> list[str]:
    """Say what goes on, the reason first; `moment` is aware. Never empty."""
    if now is None:
        return ["not running: fedit-client run", *_remembered(wish, moment)]
    for_s = passed(max(moment.timestamp() - now.since, 0.0))
    match now.activity:
        case Activity.STARTING:
            first = f"starting for {for_s}" + (f": {now.text}" if now.text else "")
        case Activity.PAUSED:
            setting = "" if now.rule == OWNER else f"  (polite.{now.rule})"
            first = f"paused for {for_s}: {now.reason}{setting}"
        case Activity.WAITING:
            first = f"idle for {for_s}: {now.reason}"
        case Activity.ROUND:
            first = f"in round {now.round_no} for {for_s}"
    return [first, *_stage_lines(now), *_device_lines(now), *_manner_lines(now)]


def _device_lines(now: Now) -> list[str]:
    """The truth about the hardware: what trains, how much of the work is on a GPU, memory, speed."""
    if not now.device or now.gpu_share is None or now.round_no is None:
        return []
    parts = [f"{now.device_name} ({now.device})", f"{now.gpu_share:.0%} on a GPU".replace("%", " %")]
    if now.memory_used_mb is not None and now.memory_reserved_mb is not None:
        total = "" if now.memory_total_mb is None else f" of {now.memory_total_mb / 1e3:.1f}"
        parts.append(f"{now.memory_used_mb / 1e3:.1f} GB used, {now.memory_reserved_mb / 1e3:.1f}{total} GB reserved")
    if now.watts is not None:
        parts.append(f"{now.watts:.0f} W")
    if now.tokens_per_second:
        parts.append(f"{now.tokens_per_second:,.0f} tokens/s")
    return [" · ".join(parts)]


def _stage_lines(now: Now) -> list[str]:
    """Where the round stands, also while it is paused."""
    if now.stage is None or now.round_no is None:
        return []
    share = "" if now.progress is None else f", {now.progress:.0%}".replace("%", " %")
    stage = "" if now.stage_eta_s is None else f", {about(now.stage_eta_s)} left"
    whole = "" if now.eta_s is None else f"; the round: {about(now.eta_s)}"
    waits = f"round {now.round_no} waits at " if now.activity is Activity.PAUSED else ""
    return [f"{waits}{now.stage}{share}{stage}{whole}"]


def _manner_lines(now: Now) -> list[str]:
    throttled = [f"half speed: {now.throttled}  (polite.user_active)"] if now.throttled else []
    return throttled + (["stops after this round, as you asked: fedit-client resume takes it back"] * now.finishing)


def _remembered(wish: Wish, moment: datetime) -> list[str]:
    if not wish.holds(moment.timestamp()):
        return []
    until = None if wish.until is None else datetime.fromtimestamp(wish.until, UTC)
    return [f"the next run waits: {owners_pause(until, moment).text}"]
