"""`fedit-client history`, `privacy` and `explain`: what this device did, what hides it, whom it talks to."""

from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import Globals


def history(
    context: typer.Context,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every signature and that no line is missing.")
    ] = False,
) -> None:
    """Show every round that this device took part in, from its own signed log."""
    from fedit_client.history import History
    from fedit_client.own_losses import losses_here, own_change
    from fedit_client.privacy_report import broken, verified

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
        said.append(f"{len(lines)} lines: every signature holds, and none is missing")
    data = {"rounds": [line.entry.model_dump(mode="json") for line in lines], "verified": not found, "faults": found}
    data["own_losses"] = {version: None if own is None else own.loss for version, own in losses.items()}
    given.console.answer("history", data, said)


def privacy(context: typer.Context) -> None:
    """Show what was given so far and how well it hides: epsilon, devices in each sum, the member log."""
    from fedit_client.privacy_report import privacy_report

    given: Globals = context.obj
    report = privacy_report(given.config())
    given.console.answer("privacy", report.as_data(), report.lines())


def explain(
    context: typer.Context, topic: Annotated[Literal["network"], typer.Argument(help="What to explain.")]
) -> None:
    """Explain what this program does on the network: every host, why, and when it was last contacted."""
    from dataclasses import asdict

    from fedit_client.contacts import Contacts, every_host
    from fedit_client.membership import load_membership

    given: Globals = context.obj
    paths = given.config().paths
    membership = load_membership(paths.membership_file)
    server = f"{membership.host}:{membership.port}" if membership else None
    base = membership.task_document.task.base.model if membership else None
    hosts = every_host(Contacts(paths.contacts_file).all(), server, base)
    lines = [*(host.line() for host in hosts), "no other host, and no telemetry of any kind"]
    given.console.answer(f"explain {topic}", {"hosts": [asdict(host) for host in hosts]}, lines)
