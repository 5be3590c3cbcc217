"""The listening side: an address with TLS, or a Unix socket for a proxy; the certificate may change while it runs."""

import asyncio
import contextlib
import errno
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fedit_protocol.errors import ConfigError, FeditError
from fedit_server.access.proxies import networks
from fedit_server.access.requests import RequestCounter
from fedit_server.clock import Clock
from fedit_server.config import ServerConfig, split_address
from fedit_server.home.folder import Identity
from fedit_server.keys.certificate import GivenFiles, PrivateLeaf, ServedCertificate, pinned_authority, read_chain
from fedit_server.keys.tls import own_names
from fedit_server.running.connections import allow_many, spare_memory
from fedit_server.running.door import HANDSHAKE_S, KEEP_S, LOOPBACK, Door, Limits

DRAIN_S: Final = 10.0
"""How long open requests may take to end when the server stops."""

_LOOK_EVERY_S: Final = 10.0
"""How often given certificate files are looked at: who renews them may not know how to send a signal."""

_RENEW_EVERY_S: Final = 12 * 3600

_BACKLOG: Final = 1024
"""How many connections may wait to be accepted. One more is dropped by the system without a word, and its device tries
again after 1, 2, 4 … seconds: thousands come at once when a server is back."""

log = logging.getLogger(__name__)


def certificate_of(config: ServerConfig, identity: Identity, clock: Clock) -> ServedCertificate | None:
    """Return what is served, None behind a Unix socket; raises ConfigError C130 to C136, StorageError."""
    check_tls_settings(config)
    if config.unix_path is not None:
        return None
    if config.cert is not None and config.key is not None:
        names = [split_address(config.advertise, default_port=0)[0]] if config.advertise else own_names(config.host)
        source = GivenFiles(config.cert, config.key, tuple(names), identity.descriptor.tls_ca)
        return ServedCertificate(source, clock)
    if not identity.tls.has_authority:
        raise ConfigError(
            "the devices of this federation know it by a certificate from elsewhere, and none is given",
            code="C136",
            where="cert, key",
            fix="fedit-server serve --cert FILE --key FILE, or: fedit-server serve --listen unix:PATH, behind a proxy",
        )
    return ServedCertificate(PrivateLeaf(identity.tls, lambda: names_of(config)), clock)


def authority_pem(config: ServerConfig) -> str | None:
    """Return what a new federation's devices shall trust: None: an authority made here; empty: their roots; or PEM.

    Raises ConfigError C130, C135.
    """
    check_tls_settings(config)
    match config.tls_authority:
        case "private":
            return None
        case "public":
            return ""
        case "":
            if config.cert is not None:
                return pinned_authority(read_chain(config.cert))
            return "" if config.unix_path else None
        case named:
            read_chain(Path(named))
            return Path(named).read_text("ascii")


def check_tls_settings(config: ServerConfig) -> None:
    """Raise ConfigError C135 for settings that do not go together."""
    if (config.cert is None) != (config.key is None):
        raise ConfigError("a certificate and its key are given together", code="C135", where="cert, key",
                          fix="fedit-server serve --cert FILE --key FILE")  # fmt: skip
    if config.unix_path is not None and not config.advertise:
        raise ConfigError(
            "behind a Unix socket nobody knows the address that devices use",
            code="C135",
            where="advertise",
            fix=f"fedit-server up --listen {config.listen} --advertise HOST",
        )
    if config.unix_path is not None and config.cert is not None:
        raise ConfigError("behind a Unix socket the proxy has the certificate", code="C135", where="cert, listen",
                          fix="leave cert and key out")  # fmt: skip


def names_of(config: ServerConfig) -> list[str]:
    """Return every name that the private leaf certificate has to cover."""
    names = own_names(config.host)
    return [*names, split_address(config.advertise, default_port=0)[0]] if config.advertise else names


@asynccontextmanager
async def listening(
    config: ServerConfig,
    app: web.Application,
    certificate: ServedCertificate | None,
    limits: Limits | None = None,
) -> AsyncIterator[int]:
    """Listen while the block runs, and give the port; SIGHUP and changed files give new connections a new certificate.

    Without `limits` those of the settings hold. Raises ConfigError C017.
    """
    limits = limits or _limits(config)
    spare_memory()
    allow_many()
    runner = web.AppRunner(
        app,
        access_log_class=RequestCounter,
        access_log=log,
        auto_decompress=False,  # a few bytes could become gigabytes; whoever sends encoded bodies is refused
        keepalive_timeout=KEEP_S,
        lingering_time=limits.linger_s,
        shutdown_timeout=DRAIN_S,
    )
    await runner.setup()
    try:
        async with contextlib.AsyncExitStack() as kept:
            listener = await _bind(runner, config, certificate, limits)
            kept.callback(listener.close)
            port = config.port if config.unix_path is not None else int(listener.sockets[0].getsockname()[1])
            if certificate is not None:
                kept.enter_context(_reloading_on_signal(certificate))
                kept.callback(asyncio.create_task(_watch(certificate), name="certificate").cancel)
            yield port
    finally:
        await runner.cleanup()


async def try_address(config: ServerConfig) -> None:
    """Take the address and let it go again; raises ConfigError C017."""
    if config.unix_path is not None:
        return
    with _binding(config):
        loop = asyncio.get_running_loop()
        bound = await loop.create_server(asyncio.Protocol, config.host, config.port, start_serving=False)
        bound.close()


def _limits(config: ServerConfig) -> Limits:
    proxies = networks(config.trusted_proxies)
    return Limits(config.most_connections, config.most_connections_per_address, (*LOOPBACK, *proxies))


async def _bind(
    runner: web.AppRunner, config: ServerConfig, certificate: ServedCertificate | None, limits: Limits
) -> asyncio.Server:
    if runner.server is None:
        raise RuntimeError("the runner is set up first")
    door, loop = Door(runner.server, limits), asyncio.get_running_loop()
    with _binding(config):
        if config.unix_path is not None:
            listener = await loop.create_unix_server(door.protocol, config.unix_path, backlog=_BACKLOG)
            config.unix_path.chmod(0o660)  # the proxy's group, and nobody else on this machine
            return listener
        tls: dict[str, Any] = {}
        if certificate is not None:
            tls = {"ssl": certificate.context, "ssl_handshake_timeout": HANDSHAKE_S}
        return await loop.create_server(door.protocol, config.host, config.port, backlog=_BACKLOG, **tls)


@contextlib.contextmanager
def _binding(config: ServerConfig) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "the address is in use" if taken else (error.strerror or type(error).__name__).lower()
        another = "unix:PATH" if config.unix_path else f"{config.host}:{config.port + 1}"
        raise ConfigError(
            f"cannot listen on {config.listen}: {reason}",
            code="C017",
            where="listen",
            fix=f"fedit-server up --listen {another}",
        ) from error


@contextlib.contextmanager
def _reloading_on_signal(certificate: ServedCertificate) -> Iterator[None]:
    """Take SIGHUP for «look at the certificate again»; where signals cannot be handled, files are looked at anyway."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGHUP, lambda: _try(certificate.reload))
    except (NotImplementedError, RuntimeError, ValueError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _watch(certificate: ServedCertificate) -> None:
    """Look at the files every few seconds, and twice a day whether the private leaf needs renewal."""
    loop = asyncio.get_running_loop()
    renew_at = loop.time() + _RENEW_EVERY_S
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        due = loop.time() >= renew_at
        if due:
            renew_at = loop.time() + _RENEW_EVERY_S
        await asyncio.to_thread(_try, certificate.reload if due else certificate.reload_if_changed)


def _try(load: Callable[[], bool]) -> None:
    try:
        changed = load()
    except FeditError as error:
        log.error("the new certificate is not served: %s", error, extra={"code": error.code})
    else:
        if changed:
            log.info("another TLS certificate is served to new connections")
