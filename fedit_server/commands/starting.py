"""The life of `up` and `serve`: start, say where it is and how to join, serve, stop cleanly."""

import signal
from typing import Any

from fedit_protocol.catalogue import TaskState
from fedit_protocol.secagg.ring import cohort_rules
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode, Task
from fedit_protocol.task_selection import least_free
from fedit_protocol.words import counted
from fedit_server.access.invites import NewInvite, Terms, create_invite
from fedit_server.admin.models.tokens import MadeLink, NewLink
from fedit_server.admin.tokens import create_link
from fedit_server.clock import unix_seconds, utc_now
from fedit_server.commands.words import join_line
from fedit_server.console import Console
from fedit_server.running.memory import settle
from fedit_server.running.notify import notify
from fedit_server.running.serving import Plan, Serving, serving, wait_for_signal

INTERRUPTED = 130


async def start(plan: Plan, console: Console) -> int:
    """Serve until a signal; returns the exit status: 130 after Ctrl-C, 0 after SIGTERM."""
    fresh = not (plan.config.home / "descriptor.cbor").exists()
    async with serving(plan) as server:
        by_hand = plan.create and plan.by_hand
        if by_hand:
            plan.config.save()
        invite = await _invite(server) if by_hand and server.apart is None else None
        link = await create_link(server.parts.admin, NewLink()) if by_hand else None
        _tell(console, server, invite, link, fresh=fresh)
        if by_hand:
            await _tell_whom_it_waits_for(console, server)
        settle()
        notify("READY=1")
        received = await wait_for_signal()
        notify("STOPPING=1")
        console.say("stopping: open requests end, the open round continues after the next start")
        if received is signal.SIGTERM:
            await server.drain()
    return exit_status(received)


def exit_status(received: signal.Signals) -> int:
    """Return what a process ends with that a signal has stopped: 130 after Ctrl-C, 0 after SIGTERM."""
    return INTERRUPTED if received is signal.SIGINT else 0


async def _invite(server: Serving) -> NewInvite:
    config, parts = server.config, server.parts
    terms = Terms(config.invite_uses, round(config.invite_days * 86400))
    now_s = unix_seconds(utc_now())
    members, salt, pin = parts.store.members, parts.invite_salt, parts.identity.pin
    async with parts.admin.change("invite.create", "") as change:
        made = await create_invite(members, salt, server.address, pin, terms, now_s)
        change.after = made.row.__dict__
    return made


def waiting_line(task: Task) -> str:
    """Return what `up` says while it waits: how many devices a round needs, and among how many each is hidden."""
    needed = counted(least_free(task), "free device")
    if task.round.mode is Mode.TRUSTED:
        return f"Waiting for {needed} for {task.id} (trusted mode: this server sees every update) …"
    sizes = range(task.round.cohort_min, task.round.ring_size + 1)
    least = min(Thresholds.of(members, cohort_rules(task)).hidden_among for members in sizes)
    return f"Waiting for {needed} for {task.id} (this task's cohort; hides each among {least}) …"


async def _tell_whom_it_waits_for(console: Console, server: Serving) -> None:
    for row in await server.parts.store.tasks.tasks():
        if row.state is TaskState.ACTIVE:
            console.say(f"  {waiting_line(row.document.task)}")


def _tell(console: Console, server: Serving, invite: NewInvite | None, link: MadeLink | None, *, fresh: bool) -> None:
    if console.json:
        ready: dict[str, Any] = {"event": "ready", "url": server.url}
        if invite is not None:
            ready["invite"] = str(invite.link)
        if link is not None:
            ready["dashboard"] = link.link
        if server.apart is not None:
            ready["authority_server"] = server.apart
        ready |= {"pin": server.parts.identity.pin, "home": str(server.config.home), "port": server.port}
        console.write_json(ready)
        return
    console.done(f"Data folder  {server.config.home}")
    if fresh:
        console.done("Identity and a private certificate authority made here (ECDSA P-256): HTTPS is on")
    place = server.parts.store.database.place
    console.done("Database     SQLite (WAL, full sync)" if place.path else f"Database     PostgreSQL, {place.shown}")
    for label in server.published:
        console.done(f"Task         {label} is published")
    if server.config.allow_trusted:
        console.done("Trusted mode allowed: a task may let this server see every update (weaker, level T0)")
    console.done(f"Listening    {server.url}")
    if link is not None:
        console.say(f"  Dashboard    {link.link}   (one-time admin link, 10 minutes)")
    if invite is not None:
        config = server.config
        console.say(f"  Invite people with one line ({config.invite_days:g} days, {config.invite_uses} uses):")
        console.say(f"      {join_line(str(invite.link))}")
        console.say("      (as a picture: fedit-server invite create --qr)")
    if server.apart is not None:
        console.say("  The enrolment authority lives apart: this server admits nobody by itself. There, run:")
        console.say(f"      fedit-server authority run --server '{server.apart}'")
        console.say("      fedit-server authority invite")
    console.say("  Ctrl-C stops; an open round continues after the next start")
