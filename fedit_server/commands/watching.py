"""The commands for whoever watches a server: `health`, `metrics`, `grafana`."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_protocol.errors import ConfigError, TransportError
from fedit_server.commands.context import CommandContext, need_server_extra

if TYPE_CHECKING:
    from fedit_server.running.probe import Probe

TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with a token of role metrics [FEDIT_TOKEN]; else one is made for this."),
]


def health(context: typer.Context) -> None:
    """Say whether the running server is ready: exit status 0, 1 if it is not, 5 if none answers. -v: every check."""
    need_server_extra()
    given: CommandContext = context.obj
    data = asyncio.run(_health(given))
    lines = ["ready" if data["ready"] else "not ready"]
    lines += [f"  {'ok ' if check['ok'] else 'NOT'} {check['name']:<12} {check['said']}" for check in data["checks"]]
    if not given.console.quiet or given.console.json:
        given.console.answer("health", data, lines)
    if not data["ready"]:
        raise typer.Exit(1)


def metrics(context: typer.Context, token_file: TokenFile = None) -> None:
    """Print what Prometheus would scrape from the running server now."""
    need_server_extra()
    from fedit_server.running.probe import Probe

    given: CommandContext = context.obj

    async def scrape() -> str:
        token = _given_token(token_file)
        probe = Probe.of(given.config())
        status, text = await probe.get("/metrics", token or await _made_token(given))
        return _answered(status, text, probe)

    text = asyncio.run(scrape())
    given.console.answer("metrics", {"text": text}, text.splitlines())


def grafana(
    context: typer.Context,
    alerts: Annotated[bool, typer.Option("--alerts", help="Print the alert rules of Prometheus instead.")] = False,
) -> None:
    """Print a Grafana dashboard (JSON, to import), or the alert rules (YAML)."""
    import json

    from fedit_server.deploy.grafana import alert_rules, dashboard

    given: CommandContext = context.obj
    if alerts:
        rules = alert_rules()
        return given.console.answer("grafana", {"alerts": rules}, rules.splitlines())
    board = dashboard()
    return given.console.answer("grafana", {"dashboard": board}, json.dumps(board, indent=2).splitlines())


async def _health(given: CommandContext) -> dict[str, Any]:
    from fedit_server.running.probe import Probe

    probe = Probe.of(given.config())
    if not given.console.verbose:
        status, _ = await probe.get("/readyz")
        return {"ready": status == 200, "checks": []}
    status, found = await probe.get_json("/readyz?verbose", await _made_token(given))
    return {"ready": status == 200, "checks": found["checks"]}


def _given_token(file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("the token file cannot be read", code="U130", where=str(file),
                              fix=f"ls -l {file}") from error  # fmt: skip
    return os.environ.get("FEDIT_TOKEN", "")


async def _made_token(given: CommandContext) -> str:
    """Make a token that is good for a minute; whoever may read the data folder may do that."""
    async with given.operations() as operations:
        wanted = {"role": "metrics", "name": "for one look", "lifetime_s": 60}
        return str((await operations.ask("POST", "/tokens", body=wanted))["secret"])


def _answered(status: int, text: str, probe: "Probe") -> str:
    if status == 200:
        return text
    raise TransportError(
        f"the server answered with {status}", code="N131", where=probe.url, fix="fedit-server token list"
    )
