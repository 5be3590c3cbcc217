"""What the page shows, read anew from this device's own files each time; one that is damaged is told, not hidden."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from fedit_client.adapters.editions import as_data, kept_versions
from fedit_client.config import ClientConfig
from fedit_client.manners.control import read_now, read_wish
from fedit_client.membership.joined import load_membership
from fedit_client.records.history import History
from fedit_client.records.outbox import outbox_of
from fedit_client.running.doing import doing_lines
from fedit_client.running.standing import standing
from fedit_protocol.errors import FeditError

_MOST_ROWS: Final = 100


def page_state(config: ClientConfig, moment: datetime) -> dict[str, Any]:
    """Return everything that the page shows; `moment` is aware. Raises nothing: trouble stands in `problems`."""
    problems: list[dict[str, str | None]] = []
    parts: dict[str, Callable[[], Any]] = {
        "now": lambda: _now(config, moment),
        "standing": lambda: _standing(config),
        "rounds": lambda: _rounds(config),
        "adapters": lambda: _adapters(config),
        "outbox": lambda: _outbox(config),
    }
    state: dict[str, Any] = {"problems": problems}
    for name, read in parts.items():
        try:
            state[name] = read()
        except FeditError as error:
            state[name] = None
            problems.append({"code": f"FEDIT-{error.code}", "message": str(error), "fix": error.fix})
    return state


def _now(config: ClientConfig, moment: datetime) -> dict[str, Any]:
    now, wish = read_now(config.paths), read_wish(config.paths)
    return {
        "running": now is not None,
        "activity": now.activity.value if now is not None else "stopped",
        "lines": doing_lines(now, wish, moment),
        "progress": now.progress if now is not None else None,
        "stage": now.stage.value if now is not None and now.stage is not None else None,
        "finishing": now is not None and now.finishing,
        "paused": wish.holds(moment.timestamp()),
    }


def _standing(config: ClientConfig) -> dict[str, Any]:
    found = standing(config)
    return {"joined": found.joined, "title": found.title, "task": found.task, "server": found.server,
            "federation": found.federation, "mode": found.mode, "rounds": found.rounds,
            "adapter_version": found.adapter_version}  # fmt: skip


def _rounds(config: ClientConfig) -> list[dict[str, Any]]:
    """The newest rounds first."""
    entries = History(config.paths.history).entries()[-_MOST_ROWS:]
    return [
        {"at": entry.ended_at, "task": entry.task, "round": entry.round_no, "outcome": entry.outcome,
         "reason": entry.reason, "devices": entry.survivors or entry.cohort, "honest": entry.honest,
         "adapter": entry.adapter_after, "up": entry.bytes_up, "down": entry.bytes_down}
        for entry in reversed(entries)
    ]  # fmt: skip


def _adapters(config: ClientConfig) -> list[dict[str, object]]:
    membership = load_membership(config.paths.membership_file)
    if membership is None:
        return []
    kept = kept_versions(config.paths.adapters, membership.task_document.task.id)
    return [as_data(one) | {"line": one.line()} for one in reversed(kept[-_MOST_ROWS:])]


def _outbox(config: ClientConfig) -> list[dict[str, Any]] | None:
    """The newest uploads first; None where the owner keeps none."""
    outbox = outbox_of(config)
    if outbox is None:
        return None
    return [
        {"number": entry.number, "at": entry.made_at, "task": entry.task, "round": entry.round_no,
         "bytes": entry.bytes, "receiver": entry.receiver, "fate": entry.fate}
        for entry in sorted(outbox.entries(), key=lambda entry: -entry.number)[:_MOST_ROWS]
    ]  # fmt: skip
