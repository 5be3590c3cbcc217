"""`fedit-client consent …`: what was agreed to, what has changed, and taking it back."""

from typing import Annotated

import typer

from fedit_client.commands.shared import Globals

consent_app = typer.Typer(
    help="What you agreed to: show it, see what changed, take it back.", no_args_is_help=True, rich_markup_mode=None
)


@consent_app.command()
def show(context: typer.Context) -> None:
    """Show what was agreed to, and when. Also whether a newer version waits for a yes. Nothing is sent."""
    from fedit_client.conversations.consenting import agreed

    given: Globals = context.obj
    found = agreed(given.config())
    given.console.answer("consent show", found.as_data(), found.lines())


@consent_app.command()
def diff(
    context: typer.Context,
    accept: Annotated[str | None, typer.Option(metavar="TASK@N", help="Agree to exactly this version.")] = None,
) -> None:
    """Show what changed since you agreed, and ask for a new yes. Every change is shown as old → new."""
    from fedit_client.conversations.consenting import changes_data, decide, look
    from fedit_client.conversations.foreground import run_async

    given: Globals = context.obj
    config, console = given.config(), given.console
    found = run_async(look(config))
    old, new = found.membership.consent, found.document.task.label
    if not found.needs_a_yes:
        console.answer("consent diff", {"from": old, "to": new, "changes": [], "agreed": True},
                       [f"{old} is what you agreed to; nothing has changed"])  # fmt: skip
        return
    console.say(f"{old} → {new}" if old != new else f"{old}, which you took back")
    for change in found.changes:
        console.say(f"  {change.line()}")
    decide(config, console, found, accept)
    result = {"from": old, "to": new, "changes": changes_data(found.changes), "agreed": True}
    console.answer("consent diff", result, [f"agreed to {new}; a running client goes on by itself"])


@consent_app.command()
def withdraw(context: typer.Context) -> None:
    """Take your yes back. Nothing is trained or sent until you agree again. The device stays enrolled."""
    from fedit_client.consent.agreements import Agreements
    from fedit_client.installed import installed_version
    from fedit_client.membership.joined import require_membership
    from fedit_client.migrations.steps import open_home

    given: Globals = context.obj
    paths = given.config().paths
    membership = require_membership(paths.membership_file)
    open_home(paths)
    decision = Agreements(paths.consents).withdraw(membership, installed_version())
    lines = [
        f"taken back: {decision.label}; no update is sent from now on, a running client pauses",
        "sums of past rounds hold your part and cannot be undone; fedit-client leave also leaves the federation",
    ]
    given.console.answer("consent withdraw", {"task": decision.label, "at": decision.at}, lines)
