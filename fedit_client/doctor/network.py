"""`doctor --network`: is the server reached, is it the pinned one, does somebody open the connection, what time is it.

Nothing about this device is sent: the requests are those of anybody who has the address.
"""

import asyncio
import importlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from fedit_client.base.model import local_base
from fedit_client.config import ClientConfig
from fedit_client.doctor.finding import Finding, Level, note, ok, warning
from fedit_client.membership.joined import Membership
from fedit_client.membership.succession import DESCRIPTOR_PATH
from fedit_client.membership.trust import PinnedBy, ServerAddress, recognise
from fedit_client.network.proxies import proxy_for
from fedit_client.records.contacts import hub_host, is_offline, note_hub, note_server
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, FeditError

_WAIT_S: Final = 10.0
_SKEW_S: Final = 300.0  # what the protocol allows (SPEC, section 4)
_SLOW_SKEW_S: Final = 60.0


async def check_network(config: ClientConfig | None, membership: Membership | None, now: datetime) -> list[Finding]:
    """Return what stands between this machine, the server and the hub."""
    found: list[Finding] = []
    address = _address(config, membership, found)
    if address is not None:
        if config is not None:
            note_server(config.paths.cache, address.host, address.port)
        found += list(_proxy(address))
        found += [finding async for finding in _server(address, now)]
    if config is not None and membership is not None:
        found.append(await asyncio.to_thread(_hub, config, membership))
    return found


def _address(config: ClientConfig | None, membership: Membership | None, found: list[Finding]) -> ServerAddress | None:
    direct = config.network.no_proxy if config is not None else ""
    if membership is not None:
        return replace(membership.address(direct), pin=digest_of(membership.descriptor), pinned_by=PinnedBy.OPTION)
    if config is None or not config.server:
        found.append(
            note("server", "no server is named, so none was asked", fix="fedit-client join --server 'fedit://…'")
        )
        return None
    try:
        return replace(ServerAddress.parse(config.server), no_proxy=direct)
    except ConfigError as error:
        found.append(Finding.of("server", error))
        return None


def _proxy(address: ServerAddress) -> Iterator[Finding]:
    host, proxy = address.host, proxy_for(address.host, address.no_proxy)
    if proxy is not None:
        way = urlsplit(proxy)  # which may hold a password
        what = f"requests to {host} go through {way.scheme}://{way.hostname}:{way.port or 80}"
        yield note("proxy", what, "HTTPS_PROXY says so", _directly(address))


def _directly(address: ServerAddress) -> str:
    """The command that takes a server out of the proxy, beside those that are out already."""
    return f"fedit-client set network.no_proxy={','.join(filter(None, (address.no_proxy, address.host)))}"


async def _server(address: ServerAddress, now: datetime) -> AsyncIterator[Finding]:
    where = f"{address.host}:{address.port}"
    try:
        federation = await recognise(address)
    except FeditError as error:
        yield Finding.of("server", error)
        if error.code in {"N001", "N002", "N004"}:
            for hint in _other_network(address.host):
                yield hint
        return
    yield ok("server", f"{where} is {federation.descriptor.name or 'the federation'}, as pinned")
    issuer, date = await _look(address)
    authority = federation.descriptor.tls_ca
    if issuer is not None and authority and issuer != _subject(authority):
        yield Finding("proxy", Level.ERROR, f'a proxy (issuer "{issuer}") opens the connection, so the server\'s own '
                      "certificate does not arrive", "it would read what this device sends; nothing was sent",
                      _directly(address), "N007", where)  # fmt: skip
    if date is not None:
        yield _clock((now - date).total_seconds())


def _clock(ahead_s: float) -> Finding:
    told = f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if abs(ahead_s) > _SKEW_S:
        return Finding("clock", Level.ERROR, told, "signed messages carry the time, and more than five minutes apart "
                       "they are refused", "timedatectl set-ntp true", "T007")  # fmt: skip
    if abs(ahead_s) > _SLOW_SKEW_S:
        return warning("clock", told, "more than five minutes would be refused", "timedatectl set-ntp true")
    return ok("clock", "agrees with the server's")


async def _look(address: ServerAddress) -> tuple[str | None, datetime | None]:
    """Return who issued the certificate that arrives, and what time the server says that it is; None if unknown."""
    try:
        async with asyncio.timeout(_WAIT_S):
            return await _answer_of(address)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        return None, None


async def _answer_of(address: ServerAddress) -> tuple[str, datetime | None]:
    """Speak just enough HTTP to see certificate and date: a library that keeps connections lets neither be seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # looks only; nothing is believed
    host = f"[{address.host}]" if ":" in address.host else address.host
    proxy = urlsplit(proxy_for(address.host, address.no_proxy) or "")
    if proxy.hostname:
        reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port or 80)
        writer.write(f"CONNECT {host}:{address.port} HTTP/1.1\r\nHost: {host}:{address.port}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(context, server_hostname=address.host)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        ask = f"GET {DESCRIPTOR_PATH} HTTP/1.1\r\nHost: {host}:{address.port}\r\nConnection: close\r\n\r\n"
        writer.write(ask.encode())
        tls: Any = writer.get_extra_info("ssl_object")
        issuer = _name(x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).issuer)
        headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        stamp = next((line.partition(":")[2].strip() for line in headers if line.lower().startswith("date:")), None)
        return issuer, parsedate_to_datetime(stamp).astimezone(UTC) if stamp else None
    finally:
        writer.close()


def _subject(authority_pem: str) -> str:
    return _name(x509.load_pem_x509_certificate(authority_pem.encode()).subject)


def _name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _other_network(host: str) -> Iterator[Finding]:
    """A home-network address asked from another network is the commonest reason of all."""
    if not host.startswith(("10.", "192.168.", *(f"172.{number}." for number in range(16, 32)))):
        return
    here = _own_address()
    if here and here.rsplit(".", 1)[0] != host.rsplit(".", 1)[0]:
        yield note("server", f"{host} is a home-network address, and this machine is {here}",
                   "such addresses are reached from the same network only")  # fmt: skip


def _own_address() -> str | None:
    """The address of this machine towards the network; a datagram socket that is connected sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _hub(config: ClientConfig, membership: Membership) -> Finding:
    """Say whether the base can be fetched, if it has to be."""
    base = membership.task_document.task.base
    model = config.model or membership.model or base.model
    if local_base(model, base.revision, config.paths.cache) is not None:
        return ok("hub", "not needed: the base is on this machine")
    if is_offline():
        return note("hub", "HF_HUB_OFFLINE is set, so the hub is not asked", "the base is not on this machine",
                    "fedit-client set model=FOLDER")  # fmt: skip
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        return note("hub", "cannot be asked without huggingface-hub", fix='pip install "fedit[train]"')
    note_hub(config.paths.cache)
    try:
        hub.HfApi().model_info(model, revision=base.revision or None, timeout=_WAIT_S)
    except hub.errors.GatedRepoError:
        return Finding("hub", Level.ERROR, f"{model} needs its licence accepted at {hub_host()}/{model} first",
                       "the hub does not give it to you yet", "hf auth login", "M001")  # fmt: skip
    except Exception as error:  # noqa: BLE001 - whatever the hub's HTTP library raises
        return warning("hub", f"{model} cannot be had from the hub now: {type(error).__name__}",
                       "the first round has to fetch it", "fedit-client set model=FOLDER")  # fmt: skip
    return ok("hub", f"{model} can be fetched")
