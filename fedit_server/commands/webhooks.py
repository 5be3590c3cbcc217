"""The commands about webhooks: who is told of rounds."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.context import ask
from fedit_server.console import table

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations

webhook_app = typer.Typer(no_args_is_help=True)

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id.")]


@webhook_app.command("create")
def webhook_create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="https:// address that takes messages.")],
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help="round.opened, round.held, round.committed or round.failed; all if left out."),
    ] = None,
) -> None:
    """Tell a receiver of rounds from now on; the secret that messages are signed with is shown once."""

    async def look(operations: "Operations") -> dict[str, Any]:
        wanted: dict[str, Any] = {"url": url, **({"events": event} if event else {})}
        return await operations.ask("POST", "/webhooks", body=wanted)

    def lines(data: dict[str, Any]) -> list[str]:
        made = data["webhook"]
        return [f"webhook {made['id']} is told of {', '.join(made['events'])}", f"  secret {data['secret']}"]

    ask(context, "webhook create", look, lines)


@webhook_app.command("list")
def webhook_list(context: typer.Context) -> None:
    """List who is told of rounds, and how the messages stand."""

    def lines(data: dict[str, Any]) -> list[str]:
        rows = (
            (w["id"], w["waiting"], w["delivered"], w["given_up"], "" if w["last_status"] is None else w["last_status"],
             w["url"])
            for w in data["webhooks"]
        )  # fmt: skip
        return table(("WEBHOOK", "WAITING", "DELIVERED", "GIVEN UP", "LAST", "URL"), rows)

    ask(context, "webhook list", lambda operations: operations.ask("GET", "/webhooks"), lines)


@webhook_app.command("ping")
def webhook_ping(context: typer.Context, webhook: Webhook) -> None:
    """Send a receiver a ping like any other message; a running server sends it within seconds."""
    ask(
        context,
        "webhook ping",
        lambda operations: operations.ask("POST", f"/webhooks/{webhook}:ping"),
        lambda data: [f"a ping waits for webhook {data['id']}: fedit-server webhook list"],
    )


@webhook_app.command("remove")
def webhook_remove(context: typer.Context, webhook: Webhook) -> None:
    """Tell a receiver no more."""
    ask(
        context,
        "webhook remove",
        lambda operations: operations.ask("DELETE", f"/webhooks/{webhook}"),
        lambda data: [f"webhook {data['id']} is removed"],
    )
