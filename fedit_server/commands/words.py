"""Results of commands as lines for people."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fedit_protocol.catalogue import TaskState
from fedit_protocol.task import Mode
from fedit_protocol.words import counted
from fedit_server.console import table, when
from fedit_server.rounds.audit_words import audit_words


def status_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `status` prints."""
    server = data["server"]
    where = f"running at {server['url']} (process {server['pid']})" if server["running"] else "not running"
    clients = f"clients  {data['clients']['enrolled']} enrolled"
    saved = data["last_backup"]
    backup = f"backup   {when(saved) if saved else 'none yet: fedit-server backup create FILE'}"
    return [
        f"server   {where}",
        *_certificate(data),
        *_authority(data["authority"]),
        clients,
        backup,
        *_tasks(data),
    ]


def _certificate(data: Mapping[str, Any]) -> Iterator[str]:
    found = data["certificate"]
    if found and found["ends_soon"]:
        yield f"tls      the certificate ends {when(found['until'])}: fedit-server cert show"


def _authority(data: Mapping[str, Any]) -> Iterator[str]:
    if data["apart"]:
        many = "1 request waits" if data["waiting"] == 1 else f"{data['waiting']} requests wait"
        waiting = f"{many} for it, since {when(data['waiting_since'])}"
        yield f"admits   an authority apart; {waiting if data['waiting'] else 'nothing waits for it'}"


def _tasks(data: Mapping[str, Any]) -> Iterator[str]:
    for task in data["tasks"]:
        why = f": {task['reason']}" if task["reason"] else ""
        yield f"task     {task['id']}@{task['version']} “{task['title']}”, {task['state']}{why}"
        if task["mode"] == Mode.TRUSTED:
            yield "  mode     trusted: weaker, this server sees every update of every device"
        yield f"  rounds   {task['committed']} of {task['rounds']} committed, {task['failed']} failed"
        yield f"  adapter  version {task['adapter_version']}"
        if task["last_report"]:
            yield f"  last     {_report(task['last_report'])}"
            yield from class_lines(task["last_report"])
            yield from domain_lines(task["last_report"])
            yield from coverage_lines(task["last_report"])
            yield from diversity_lines(task["last_report"])
            yield from method_lines(task["last_report"])
        if task["round"]:
            counts = ", ".join(f"{count} {name}" for name, count in task["round"]["progress"].items() if count)
            deadline = when(task["round"]["deadline"])
            until = f", until {deadline} at the latest" if deadline else ""
            yield f"  now      round {task['round']['no']}, {task['round']['stage']} ({counts or 'nobody yet'}){until}"
        elif task["state"] == TaskState.ACTIVE and not task["held"]:
            yield f"  waits    {_waits(task['devices_needed'], data)}"
        for client in task["suspects"]:
            yield f"  suspect  client {client[:12]}: its cohorts keep being far from the others"
            yield f"           fedit-server clients list, then perhaps: fedit-server clients revoke {client[:12]}"
        if task["held"]:
            number = task["held"]["no"]
            yield f"  held     round {number}: {task['held']['reason']}"
            yield f"           fedit-server round approve {number}, or: fedit-server round reject {number}"


def _waits(needed: int, data: Mapping[str, Any]) -> str:
    """Only the running server knows who is free; too few that are enrolled is a sure reason."""
    enrolled = data["clients"]["enrolled"]
    opens = (
        f"a round opens when {needed} devices are free at once; {enrolled} {'is' if enrolled == 1 else 'are'} enrolled"
    )
    if enrolled < needed:
        invite = (
            "fedit-server authority invite, on the authority's machine"
            if data["authority"]["apart"]
            else "fedit-server invite"
        )
        return f"{opens}, {needed - enrolled} too few: {invite}"
    return f"{opens}; those that run `fedit-client run` and have no other round count as free"


def _report(report: Mapping[str, Any]) -> str:
    held_out = report["held_out_loss"]
    tested = "" if held_out is None else f", held-out loss {held_out:.4f}"
    if "epsilon" in report:  # noise leaves no room for figures of the devices
        spent = f"epsilon {report['epsilon']:.3g} so far, {report['round_epsilon']:.3g} in one round"
        return f"{spent}, at delta {report['delta']:.0e} ({counted(report['survivors'], 'device')})"
    who = f"{counted(report['survivors'], 'device')}, {counted(report['examples'], 'example')}"
    return f"training loss {report['train_loss']:.4f}{tested} ({who})"


_UNKNOWN: Final = {
    "few": "too few devices to hide one",
    "dropped": "unknown, a device dropped out",
    "garbled": "unknown, a device broke the rules",
}


def class_lines(report: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the canary losses of the base classes and how far they are apart; nothing without canary rows."""
    if report is None or "canary" not in report:
        return
    each = (
        f"{one['class']} {one['loss']:.4f} ({counted(one['devices'], 'device')})"
        if one["unknown"] is None
        else f"{one['class']} {_UNKNOWN[one['unknown']]}"
        for one in report["canary"]
    )
    yield f"  classes  canary loss: {', '.join(each)}"
    apart, most = report["drift"], report.get("max_drift")
    if apart is not None and most is not None:
        warned = "warning: base classes drift apart: " if apart > most else ""
        yield f"  drift    {warned}{apart:.4f} nats per token, {most:g} allowed"


def domain_lines(report: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the losses of a round's domains and how even they are; nothing for a task that names none."""
    if report is None or "domains" not in report:
        return
    each = (
        f"{one['domain']} {one['loss']:.4f} ({counted(one['devices'], 'device')})"
        if one["unknown"] is None
        else f"{one['domain']} {_UNKNOWN[one['unknown']]}"
        for one in report["domains"]
    )
    yield f"  domains  loss before training: {', '.join(each)}"
    if (even := report["spread"]) is not None:
        worst = f"worst {even['worst']} {even['worst_loss']:.4f}"
        yield f"  spread   mean {even['mean']:.4f}, {worst}, deviation {even['std']:.4f}, Jain {even['jain']:.3f}"


def coverage_lines(report: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what a round covers of the task's categories; nothing for a task that counts none."""
    if report is None or "coverage" not in report:
        return
    missing = f"; nobody has {', '.join(report['not_covered'])}" if report["not_covered"] else ""
    yield f"  coverage {report['coverage']:.0%} of the categories{missing}"


def diversity_lines(report: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield how unlike the devices' updates were; nothing for a task that does not measure it."""
    if report is None or "diversity" not in report.get("method", {}):
        return
    scale = f"1 if all devices sent the same, about {report['survivors']} if each went its own way, more if they cancel"
    yield f"  unlike   gradient diversity {report['method']['diversity']:.2f}: {scale}"


def method_lines(report: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what averaging the factors lost and what was given back of it; nothing where no round was audited."""
    yield from (f"  {label:<8} {clause}" for label, clause in audit_words(report))


def round_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `round show` prints: one value a line, then in words what else its report says."""
    report = data["report"]
    plain = (f"{name}: {value}" for name, value in data.items())
    return [
        *plain,
        *class_lines(report),
        *domain_lines(report),
        *coverage_lines(report),
        *diversity_lines(report),
        *method_lines(report),
    ]


def far_off_words(held: Iterable[Mapping[str, Any]]) -> str:
    """Return in how many of its rounds a device's cohort was far from the others, per task."""
    return ", ".join(
        f"{one['task']}: {one['flagged']} of {one['rounds']} rounds, {one['streak']} in a row{', named' * one['named']}"
        for one in held
    )


def round_cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the columns of one line of `round list`."""
    return row["task"], row["no"], row["mode"], row["state"], row["stage"], when(row["opened_at"]), row["reason"]


def invite_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `invite create` prints."""
    return [
        f"invite {data['id']}, {data['uses']} uses, until {when(data['expires_at'])}",
        f"  {data['link']}",
        f"  {join_line(data['link'], data.get('tasks', ()))}",
    ]


def qr_lines(text: str) -> list[str]:
    """Return a QR code of half blocks, two rows of it in each line; needs a terminal that shows UTF-8."""
    import segno

    drawn = io.StringIO()
    segno.make(text, error="l").terminal(drawn, compact=True, border=2)
    return drawn.getvalue().splitlines()


def audit_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `authority log` prints."""
    cells = (
        (row["position"], row["action"], row["serial"], row["identity_sha256"][:16], when(row["time"]))
        for row in data["entries"]
    )
    where = "an authority apart" if data["authority"] == "apart" else "the server"
    return [
        *table(("ENTRY", "ACTION", "SERIAL", "IDENTITY (SHA-256)", "TIME"), cells),
        f"federation {data['federation']}, kept by {where}",
        f"size {data['size']}, enrolled now {data['devices']}, root {data['root']}",
        "checked: every entry, every signed head, and that each log continues the one before",
    ]


def invite_list_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `invite list` prints."""
    rows = (
        (row["id"], row["state"], f"{row['uses']}/{row['max_uses']}", when(row["expires_at"]), ", ".join(row["tasks"]))
        for row in data["invites"]
    )
    return table(("INVITE", "STATE", "USED", "EXPIRES", "TASKS"), rows)


def waiting_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `clients list --waiting` prints."""
    rows = ((row["code"], row["label"], row["invite"], row["asked"]) for row in data["waiting"])
    return table(("CODE", "LABEL", "INVITE", "ASKED"), rows)


def client_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `clients block` and `clients unblock` print."""
    return [f"client {data['id'][:12]} is {data['state']}"]


def revoked_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `clients revoke` prints."""
    short = data["id"][:12]
    if data["logged"]:
        return [f"client {short} is revoked"]
    return [
        f"client {short} is blocked on this server; its certificate is in force until the authority revokes it:",
        f"  fedit-server authority revoke {short}",
    ]


def rotated_lines(*, lost: bool, apart: bool) -> list[str]:
    """Return what `keys rotate` prints."""
    if not lost:
        return ["the server has a new key: devices and invites follow by themselves; the old key is deleted"]
    new = "each has to leave and to join with a new invite"
    if not apart:
        return [f"the server has a new key: no device trusts it yet: {new}: fedit-server invite"]
    return [
        f"the server has a new key: no device trusts it yet, nor does the authority: {new}",
        "  the server prints, when it runs, the line with which its authority meets it anew and makes invites",
    ]


def join_line(link: str, tasks: Sequence[str] = ()) -> str:
    """Return the line that people paste; quoted, because a shell would take # for a comment."""
    return f'fedit-client join --server "{link}"{f" --task {tasks[0]}" if tasks else ""}'


def task_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `task show` prints: the resolved task, one setting a line."""
    head = {name: data[name] for name in ("state", "digest", "adapter_parameters")}
    return [*_settings("", head), *_settings("", data["task"])]


def _settings(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _settings(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name} = {value!r}"
