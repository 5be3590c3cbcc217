"""`fedit-server cert …`: the certificate that devices see, and the authority that they trust."""

import os
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_protocol.errors import ConfigError
from fedit_server.commands.context import CommandContext

if TYPE_CHECKING:
    from fedit_server.config import ServerConfig
    from fedit_server.home.folder import Identity

cert_app = typer.Typer(no_args_is_help=True)


@cert_app.command()
def show(context: typer.Context) -> None:
    """Show the served certificate and the authority that devices trust, with their names and ends."""
    from fedit_server.home.folder import Home, load_identity

    given: CommandContext = context.obj
    config = given.config()
    data = certificate_data(config, load_identity(Home(config.home)))
    given.console.answer("cert show", data, _lines(data))


@cert_app.command()
def renew(context: typer.Context) -> None:
    """Make a new leaf of the private authority now; a running server shows it to new connections at once."""
    from fedit_server.clock import utc_now
    from fedit_server.home.folder import Home, load_identity
    from fedit_server.running.listening import names_of

    given: CommandContext = context.obj
    config = given.config()
    home = Home(config.home)
    identity = load_identity(home)
    if config.cert is not None or not identity.tls.has_authority:
        raise ConfigError(
            "this server's certificate comes from elsewhere, and is renewed there",
            code="U131",
            where=str(config.cert or "the proxy"),
            fix="fedit-server cert show; a running server takes up the new files by itself",
        )
    identity.tls.renew_leaf(names_of(config), utc_now(), anyway=True)
    running = home.running_server()
    if running is not None and running["pid"]:
        os.kill(running["pid"], signal.SIGHUP)
    data = certificate_data(config, identity)
    given.console.answer("cert renew", data, _lines(data))


@cert_app.command("rotate-ca")
def rotate_ca(
    context: typer.Context,
    finish: Annotated[
        bool, typer.Option("--finish", help="Let the new authority take over; devices that did not come by are lost.")
    ] = False,
) -> None:
    """Change the private authority of the stopped server: first both are trusted, with --finish the new one alone."""
    from fedit_server.clock import utc_now
    from fedit_server.home.folder import Home
    from fedit_server.keys import authority_rotation

    given: CommandContext = context.obj
    config = given.config()
    home = Home(config.home)
    with home.require().lock():
        step = authority_rotation.finish if finish else authority_rotation.begin
        data = certificate_data(config, step(home, utc_now()))
    said = (
        "the new authority signs from the next start on; a device that was not here since the change has to join again"
        if finish
        else "devices trust both authorities once they were here; when all were: fedit-server cert rotate-ca --finish"
    )
    given.console.answer("cert rotate-ca", data, [said, *_lines(data)])


def certificate_data(config: "ServerConfig", identity: "Identity") -> dict[str, Any]:
    """Return what is served and what devices trust; raises ConfigError, StorageError where that cannot be read."""
    from fedit_server.clock import utc_now
    from fedit_server.keys.certificate import describe, read_chain

    now = utc_now()
    if config.unix_path is not None:
        served = None
    else:
        file = config.cert or identity.tls.leaf_files[0]
        served = {"file": str(file), **describe(read_chain(file)[0], now)} if file.exists() else None
    trusted = identity.descriptor.tls_ca
    return {
        "served": served,
        "trusted": describe(_first(trusted), now) if trusted else None,
        "pin": identity.pin,
    }


def _first(pem: str) -> Any:
    from cryptography import x509

    return x509.load_pem_x509_certificates(pem.encode())[0]


def _lines(data: dict[str, Any]) -> list[str]:
    lines = []
    for title, found in (("served", data["served"]), ("trusted", data["trusted"])):
        if found is None:
            lines.append(
                f"{title:<8} " + ("by a proxy, or not yet" if title == "served" else "whatever devices' systems trust")
            )
            continue
        until = datetime.fromisoformat(found["until"])
        lines.append(f"{title:<8} until {until:%Y-%m-%d} ({found['days_left']} days), issued by {found['issuer']}")
        if found["names"]:
            lines.append(f"         for {', '.join(found['names'])}")
    return [*lines, f"pin      {data['pin']}"]
