"""The commands that read and check the audit log."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fedit_protocol.errors import ConfigError
from fedit_server.commands.context import ask, pages
from fedit_server.console import table, when

if TYPE_CHECKING:
    from fedit_server.admin.audit import Checked
    from fedit_server.admin.models.audit import AuditLineInfo
    from fedit_server.commands.operations import Operations

audit_app = typer.Typer(no_args_is_help=True)

_PAGE: Final = 200


@audit_app.command("tail")
def audit_tail(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=_PAGE, help="How many of the newest.")] = 20,
) -> None:
    """Show the newest changes: who, what, when; no addresses, no secrets."""

    async def look(operations: "Operations") -> dict[str, Any]:
        size = (await operations.ask("GET", "/audit", query={"limit": 1}))["size"]
        found = await operations.ask("GET", "/audit", query={"after": max(0, size - count), "limit": count})
        return {"lines": found["lines"], "size": found["size"]}

    def lines(data: dict[str, Any]) -> list[str]:
        rows = (
            (row["position"], when(row["time"]), row["who"], row["role"], row["action"], row["subject"])
            for row in data["lines"]
        )
        return table(("ENTRY", "TIME", "WHO", "ROLE", "ACTION", "WHAT"), rows)

    ask(context, "audit tail", look, lines)


@audit_app.command("export")
def audit_export(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="File to write: one JSON line for each entry.")],
) -> None:
    """Write the whole log to a file that `audit verify --file` checks anywhere."""

    async def look(operations: "Operations") -> dict[str, Any]:
        signers, rows = await _whole(operations)
        if out.exists():
            raise ConfigError(f"{out} exists already", code="U027", fix="name a file that does not exist yet")
        out.write_text("".join(json.dumps(row) + "\n" for row in (signers, *rows)), encoding="utf-8")
        return {"file": str(out.absolute()), "entries": len(rows)}

    ask(context, "audit export", look, lambda data: [f"{data['entries']} entries are in {data['file']}"])


@audit_app.command("verify")
def audit_verify(
    context: typer.Context,
    file: Annotated[Path | None, typer.Option("--file", help="An export instead of the server's own log.")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="An earlier export that the log must continue.")
    ] = None,
) -> None:
    """Check that no entry was changed, cut out or forged."""

    def check(found: tuple[dict[str, Any], list[dict[str, Any]]]) -> dict[str, Any]:
        from fedit_server.admin.audit import check_grown

        checked, rows = _checked(found)
        if against is not None:
            check_grown(_checked(_read(against))[1], rows)
        return {"size": checked.size, "digest": checked.digest, "pin": checked.pin}

    async def look(operations: "Operations") -> dict[str, Any]:
        return check(await _whole(operations))

    def lines(data: dict[str, Any]) -> list[str]:
        return [
            f"{data['size']} entries hold together, newest {data['digest'][:16]}…",
            f"signed by the server of {data['pin']}",
        ]

    if file is None:
        ask(context, "audit verify", look, lines)
    else:
        data = check(_read(file))
        context.obj.console.answer("audit verify", data, lines(data))


async def _whole(operations: "Operations") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    signers = await operations.ask("GET", "/audit/signers")
    return signers, await pages(operations, "/audit", "lines")


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        signers, *rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"this is no export of an audit log: {error}",
            code="U110",
            where=str(path),
            fix="fedit-server audit export --out FILE",
        ) from error
    return signers, rows


def _checked(found: tuple[dict[str, Any], list[dict[str, Any]]]) -> tuple["Checked", list["AuditLineInfo"]]:
    from pydantic import ValidationError

    from fedit_server.admin.audit import check_log
    from fedit_server.admin.models.audit import AuditLineInfo, AuditSigners
    from fedit_server.storage.audit import broken

    try:
        signers = AuditSigners.model_validate_json(json.dumps(found[0]))
        rows = [AuditLineInfo.model_validate(row) for row in found[1]]
    except ValidationError as error:
        raise broken("a line is not one of an audit log") from error
    return check_log(signers, rows), rows
