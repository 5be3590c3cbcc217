"""The commands about who may use the admin API: tokens and login links."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.arguments import duration_s
from fedit_server.commands.context import ask, need_server_extra
from fedit_server.console import table, when

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations

token_app = typer.Typer(no_args_is_help=True)

RoleName = Annotated[
    str, typer.Option("--role", help="admin (or owner), operator, viewer, auditor or metrics; OPERATING.md says more.")
]


@token_app.command("create")
def token_create(
    context: typer.Context,
    role: RoleName,
    link: Annotated[
        bool, typer.Option("--link", help="A login link to the dashboard instead: good once, for 10 minutes.")
    ] = False,
    expires: Annotated[str, typer.Option("--expires", help="How long it is valid: 365d, 12h.")] = "365d",
    name: Annotated[str, typer.Option("--name", help="What it is for.")] = "",
) -> None:
    """Make a token for the admin API; it is shown once."""
    word = "admin" if role == "owner" else role

    async def look(operations: "Operations") -> dict[str, Any]:
        if link:
            return await operations.ask("POST", "/tokens:link", body={"role": word})
        wanted = {"role": word, "name": name, "lifetime_s": duration_s(expires)}
        return await operations.ask("POST", "/tokens", body=wanted)

    def lines(data: dict[str, Any]) -> list[str]:
        made = data["token"]
        head = f"{made['kind']} {made['id']} for the role {made['role']}, until {when(made['expires_at'])}"
        return [head, f"  {data['link'] if link else data['secret']}"]

    ask(context, "token create", look, lines)


@token_app.command("list")
def token_list(context: typer.Context) -> None:
    """List tokens, login links and sessions; secrets are not kept, so they cannot be shown again."""

    def lines(data: dict[str, Any]) -> list[str]:
        rows = (
            (one["id"], one["kind"], one["role"], one["state"], when(one["expires_at"]), one["last_used"] or "never")
            for one in data["tokens"]
        )
        names = [one["name"] for one in data["tokens"]]
        cells = ((*row, name) for row, name in zip(rows, names, strict=True))
        return table(("TOKEN", "KIND", "ROLE", "STATE", "EXPIRES", "USED", "NAME"), cells)

    ask(context, "token list", lambda operations: operations.ask("GET", "/tokens"), lines)


@token_app.command("revoke")
def token_revoke(context: typer.Context, token: Annotated[str, typer.Argument(metavar="TOKEN")]) -> None:
    """Make a token, a login link or a session useless, by its id."""
    ask(
        context,
        "token revoke",
        lambda operations: operations.ask("DELETE", f"/tokens/{token}"),
        lambda data: [f"{data['kind']} {data['id']} is {data['state']}"],
    )


def openapi(context: typer.Context) -> None:
    """Print the OpenAPI 3.1 document of the admin API, as the server serves it at /openapi.json."""
    import json

    from fedit_server.routes.admin import openapi_document

    need_server_extra()
    found = openapi_document()
    context.obj.console.answer("openapi", {"document": found}, json.dumps(found, indent=2).splitlines())
