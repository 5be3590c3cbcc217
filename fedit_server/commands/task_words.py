"""Results of the task commands as lines for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedit_server.console import table, when

if TYPE_CHECKING:
    from fedit_protocol.lineage import Origin


def task_table(data: Mapping[str, Any]) -> list[str]:
    """Return what `task list` prints."""
    rows = (
        (f"{row['id']}@{row['version']}", row["state"], f"{row['committed']}/{row['rounds']}", row["failed"],
         row["adapter_version"], row["owner"], row["title"])
        for row in data["tasks"]
    )  # fmt: skip
    return table(("TASK", "STATE", "ROUNDS", "FAILED", "ADAPTER", "OWNER", "TITLE"), rows)


def edit_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `task edit` prints: what differs, and who is asked about it."""
    rows = [f"  {row['name']}: {row['old']} → {row['new']}" for row in data["changes"]]
    made = f"{data['task']}@{data['version']}"
    if data["draft"]:
        told = f"the draft of {data['task']} is changed" if data["published"] else f"would change the draft {made}"
        return [f"{told}:", *rows]
    told = f"{made} is published" if data["published"] else f"would publish {made}"
    return [
        f"{told}. Every device stops taking part until its owner has agreed to:",
        *rows,
        "an open round ends under the version that it began with",
    ]


def record_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `task log` prints."""
    rows = (
        (row["number"], when(row["at"]), row["kind"], row["state"], row["version"], row["by"], row["reason"])
        for row in data["changes"]
    )
    checked = (
        f"checked: {len(data['changes'])} signed lines without a gap; the newest is {data['changes'][-1]['digest']}"
    )
    return [*table(("LINE", "TIME", "CHANGE", "STATE", "VERSION", "BY", "REASON"), rows), checked]


def round_line(event: Mapping[str, Any]) -> str:
    """Return one line of `round watch`."""
    counts = ", ".join(f"{count} {name}" for name, count in event["progress"].items() if count) or "nobody yet"
    many = f", {len(event['cohorts'])} cohorts" if len(event["cohorts"]) > 1 else ""
    until = f", until {when(event['deadline'])} at the latest" if event["deadline"] else ""
    why = f": {event['reason']}" if event["reason"] else ""
    where = event["stage"] if event["state"] == "open" else event["state"]
    return f"{when(event['time'])}  {event['task']} round {event['round']}  {where} ({counts}{many}){until}{why}"


def origin_data(origin: "Origin") -> dict[str, Any]:
    """Return the data of `adapter verify --json`."""
    told, newest = origin.lineage, origin.newest
    return {
        "task": told.task_id,
        "version": newest.version,
        "digest": newest.digest,
        "round": newest.round_no,
        "versions": len(told.steps),
        "base": {"model": told.base_model, "revision": told.base_revision, "digest": told.base_digest},
        "federation": told.federation_id,
        "pin": origin.pin,
        "vouched": origin.vouched,
        "signed_at": origin.at,
    }


def origin_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `adapter verify` prints."""
    lines = [
        f"version {data['version']} of {data['task']}, signed {when(data['signed_at'])}",
        f"checked: every file, and {data['versions']} versions, each made from the one before",
        f"base {data['base']['model']}, {data['base']['digest']}",
    ]
    if data["vouched"]:
        return [*lines, f"signed by the federation that you trust, {data['pin']}"]
    return [*lines, f"whose federation that is nobody here can say: compare its pin, {data['pin']}"]
