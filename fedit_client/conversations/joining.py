"""The conversation behind `join`: data, server, task, machine, consent, in this order; then enrol and stay."""

from dataclasses import dataclass

from fedit_client.client import Client
from fedit_client.consent.terms import admitted_by, missing_consent
from fedit_client.console import Console
from fedit_client.conversations.setting_up import set_up
from fedit_client.data import Record, RowFile, Source
from fedit_client.data.findings import first_look
from fedit_client.hardware.fit import Fit
from fedit_client.hardware.runtime import python_in
from fedit_client.manners.words import summary
from fedit_client.membership.offers import TaskOffer
from fedit_client.membership.trust import PinnedBy
from fedit_client.records.payloads import payload_lines
from fedit_client.rounds.preparation import check_training_stack, cpu_needs_a_yes
from fedit_client.rounds.rehearsal import DryRun
from fedit_protocol.errors import ConsentError, DataError, DeviceError
from fedit_protocol.words import counted


@dataclass(frozen=True)
class JoinWishes:
    """What the owner said on the command line."""

    data: tuple[Source, ...] = ()
    task: str | None = None
    accept: str | None = None
    label: str = ""


async def join(client: Client, console: Console, wishes: JoinWishes) -> TaskOffer:
    """Lead through joining; raises what is wrong before anything is sent that the server does not need.

    What is soon known comes first: an invite nobody made is noticed before a base is fetched, never after.
    """
    offer, found = await _looked_at(client, console, wishes, answered=True)
    _agree(console, wishes, offer)
    here = found is None or found.fetch.place is not None
    if here:  # looked at before the invite is used
        await _base(client, console, offer)
    await client.join(consent=offer.accept(), label=wishes.label, say=console.say)
    console.done(f"joined {offer.summary.label}")
    if not here:
        await _base(client, console, offer)
    return offer


async def rehearse_join(client: Client, console: Console, wishes: JoinWishes) -> DryRun:
    """Look at the task and train one round's work of it; nothing is joined, and nothing sent."""
    offer, _ = await _looked_at(client, console, wishes, answered=False)
    return await client.dry_run(offer, console.say)


async def _looked_at(
    client: Client, console: Console, wishes: JoinWishes, *, answered: bool
) -> tuple[TaskOffer, Fit | None]:
    """Show the server, the task and what it means for this machine; with `answered` a yes must be possible."""
    _stack(client, console)
    _check_data_is_named(client, console, wishes)
    offer = await client.fetch_offer(wishes.task)
    if answered:
        client.check_admission(offer)
    _show_server(console, offer)
    for line in offer.summary.lines():
        console.say(f"  {line}")
    if answered:
        _check_answer(console, wishes, offer.summary.label)
    records = _take_data(client, console, wishes)
    return offer, await _fit(client, console, offer, records)


async def _base(client: Client, console: Console, offer: TaskOffer) -> None:
    _, base = await client.prepare(offer, console.say)
    console.done(f"the base is the one that the task pins: {base}")


def _stack(client: Client, console: Console) -> None:
    """See that something here can train; where nobody is there to ask, that is an error, else it can be mended now."""
    try:
        check_training_stack(client.config.device)
    except DeviceError as error:
        if error.code != "H005" or not console.interactive:
            raise
        console.say(f"{error}")
        if not (plan := set_up(client.config, console, "auto")).commands:
            raise
        client.use_python(python_in(plan.folder))


def describe_rows(rows: RowFile) -> str:
    """One line about a file: rows, shape, what was skipped or ignored."""
    parts = [counted(len(rows.records), "row"), f"{rows.shape} columns"]
    if rows.parts:
        parts.append(counted(len(rows.parts), "file"))
    if rows.skipped:
        parts.append(f"{len(rows.skipped)} skipped")
    if rows.ignored_columns:
        parts.append(f"ignored: {', '.join(rows.ignored_columns)}")
    categories = [name for name in rows.by_category() if name]
    if categories:
        parts.append(counted(len(categories), "category", "categories"))
    return " · ".join(parts)


def _check_data_is_named(client: Client, console: Console, wishes: JoinWishes) -> None:
    if not (wishes.data or client.has_data or console.interactive):
        raise DataError("no data was given", code="D020", fix="fedit-client join --data rows.jsonl",
                        again="--data rows.jsonl")  # fmt: skip


def _take_data(client: Client, console: Console, wishes: JoinWishes) -> list[Record]:
    sources = list(wishes.data)
    if not sources and not client.has_data:
        sources = [Source(console.ask("Data to train on:", flag="--data PATH").strip())]
    if not sources:
        console.say(f"trains on what was added before: {', '.join(client.sources) or 'rows of this process'}")
    records: list[Record] = []
    for source in sources:
        rows = client.add_data(source.place, columns=source.columns, shape=source.shape, on_error=source.on_error)
        tell_rows(console, source.place, rows)
        records.extend(rows.records)
        if source.is_stdin:
            console.warn("rows from stdin are used by this process only; a later run needs a file")
    return records


def tell_rows(console: Console, place: str, rows: RowFile) -> None:
    """Say what a source holds, and every choice that was made about it."""
    console.done(f"{place}: {describe_rows(rows)}")
    for note in rows.notes:
        console.say(f"  {note}")
    for finding in first_look(rows.by_file()):
        count = len(finding.places)
        console.say(f"  {counted(count, 'row')}: {finding.what}   "
                    f"(fedit-client data check {place} --show {finding.code})", style="yellow")  # fmt: skip


def _show_server(console: Console, offer: TaskOffer) -> None:
    federation = offer.federation
    words = {
        PinnedBy.INVITE: "server identity matches the invite",
        PinnedBy.OPTION: "server identity matches --pin",
        PinnedBy.FIRST_USE: "server known to this system's certificate authorities; pinned on first use",
    }
    console.done(f"{words[federation.pinned_by]} ({federation.pin[:19]}…)")
    console.done(f"devices are admitted by {admitted_by(federation.descriptor)}")


async def _fit(client: Client, console: Console, offer: TaskOffer, records: list[Record]) -> Fit | None:
    """Say what the task means for this machine before anything is fetched; a CPU is used after a yes only."""
    if (found := await client.fit(offer, records)) is None:
        return None
    found.fetch.check()
    chosen = found.plan
    if chosen.needs_cpu_consent:
        if not (console.interactive or console.yes):
            raise cpu_needs_a_yes(chosen)
        console.say(f"{chosen.reason}: {found.time_words()} on the CPU")
        if not console.confirm("Train on the CPU?", flag="--device cpu"):
            raise ConsentError("training on the CPU was declined", code="A004",
                               fix=chosen.cpu_fix or "fedit-client join --device cpu",
                               again=None if chosen.cpu_fix else "--device cpu")  # fmt: skip
        client.use_cpu()
    console.done(f"{chosen.reason} · {found.short()}")
    polite = summary(client.config.polite, on_gpu=chosen.device != "cpu")
    console.say(f"  {polite}   (change: fedit-client set polite.…)")
    console.done(f"base model {found.fetch.words()}")
    return found


def _check_answer(console: Console, wishes: JoinWishes, label: str) -> None:
    """Raise ConsentError A003 for a yes to another version, A001 where there is none and nobody to ask."""
    if wishes.accept is None and not (console.yes or console.interactive):
        raise missing_consent(label)
    if wishes.accept not in (None, label):
        raise ConsentError(
            f"you agreed to {wishes.accept}, but the task is {label}; read it, then agree to that",
            code="A003",
            fix=f"fedit-client join --accept {label}",
            again=f"--accept {label}",
        )


def _agree(console: Console, wishes: JoinWishes, offer: TaskOffer) -> None:
    """Take the owner's answer, unless it was given on the command line; nothing but the owner can give it."""
    if wishes.accept is not None or console.yes:
        return
    if not _accepted(console, offer):
        raise ConsentError(
            "the task was declined; nothing was sent", code="A002", fix="fedit-client join, to look again", again=""
        )


def _accepted(console: Console, offer: TaskOffer) -> bool:
    """Ask until there is a yes or a no; in between an upload can be looked at."""
    label = offer.summary.label
    while True:
        question = f"Take part in {label}?  [p] preview an upload   [y] accept   [n] decline:"
        match console.ask(question, flag=f"--accept {label}").strip().lower():
            case "y" | "yes":
                return True
            case "n" | "no" | "":
                return False
            case "p":
                console.say("An invented upload of this task's form and size; the numbers are made up:")
                for line in payload_lines(offer.example_payload):
                    console.say(f"  {line}")
                console.say("A real one from your rows, which sends nothing: add --dry-run to this command.")
            case _:
                console.say("p, y or n")
