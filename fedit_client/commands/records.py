"""`fedit-client history`, `privacy` and `explain`: what this device did, what hides it, whom it talks to."""

from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import Globals
from fedit_protocol.words import counted


def history(
    context: typer.Context,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every signature and that no line is missing.")
    ] = False,
) -> None:
    """Show every round of this device, from its own signed log."""
    from fedit_client.conversations.privacy_report import broken, verified
    from fedit_client.evaluation.own_losses import losses_here, own_change
    from fedit_client.records.history import History

    given: Globals = context.obj
    config = given.config()
    lines = History(config.paths.history).lines()
    found = verified(config, lines)
    if found and verify:
        raise broken(found, config.paths.history)
    for fault in found:
        given.console.warn(f"the history does not hold: {fault}")
    losses = losses_here(config.paths)
    said = [line.entry.line() + own_change(losses, line.entry) for line in lines] or ["no round yet"]
    if verify:
        said.append(f"{counted(len(lines), 'line')}: every signature holds, and none is missing")
    data = {"rounds": [line.entry.model_dump(mode="json") for line in lines], "verified": not found, "faults": found}
    data["own_losses"] = {version: None if own is None else own.loss for version, own in losses.items()}
    given.console.answer("history", data, said)


def privacy(context: typer.Context) -> None:
    """Show what was given so far and how well it hides. That is epsilon, devices in each sum, the member log."""
    from fedit_client.conversations.privacy_report import privacy_report

    given: Globals = context.obj
    report = privacy_report(given.config())
    given.console.answer("privacy", report.as_data(), report.lines())


def explain(
    context: typer.Context, topic: Annotated[Literal["network"], typer.Argument(help="What to explain.")]
) -> None:
    """Explain what this program does on the network. Every host, why, and when it was last contacted."""
    from dataclasses import asdict

    from fedit_client.membership.joined import load_membership
    from fedit_client.records.contacts import Contacts, every_host

    given: Globals = context.obj
    paths = given.config().paths
    membership = load_membership(paths.membership_file)
    server = f"{membership.host}:{membership.port}" if membership else None
    base = membership.task_document.task.base.model if membership else None
    hosts = every_host(Contacts(paths.contacts_file).all(), server, base)
    lines = [*(host.line() for host in hosts), "no other host, and no telemetry of any kind"]
    given.console.answer(f"explain {topic}", {"hosts": [asdict(host) for host in hosts]}, lines)


def identity(
    context: typer.Context,
    move: Annotated[
        Literal["keyring", "file"] | None, typer.Option(help="Keep the key there from now on, and in no other place.")
    ] = None,
) -> None:
    """Show where the key of this device is kept, or move it. It lies in the system's keyring or in a private file."""
    from fedit_client.config import edit_settings
    from fedit_client.home.key_ring import KeyStore
    from fedit_client.home.lock import held_alone
    from fedit_client.membership.identity import kept_in, load_identity, move_identity

    given: Globals = context.obj
    paths = given.config().paths
    if move is not None:
        with held_alone(paths.lock_file):
            move_identity(paths.identity_file, KeyStore(move))
        edit_settings(paths, {"identity.store": move})
    key, store = load_identity(paths.identity_file), kept_in(paths.identity_file)
    public = key.public.hex() if key else None
    where = {
        KeyStore.FILE: f"a file that only you can read: {paths.identity_file}",
        KeyStore.KEYRING: "the system's keyring",
    }
    lines = (
        [f"device key {public}", f"kept in {where[store]}"] if store else ["this device has no key yet; join makes one"]
    )
    given.console.answer("identity", {"public": public, "store": store}, lines)
