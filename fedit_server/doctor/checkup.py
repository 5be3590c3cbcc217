"""`fedit-server doctor`: what may keep a server from starting, or devices from reaching it, the worst first."""

import ipaddress
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from fedit_protocol.errors import ConfigError, FeditError, StorageError, TransportError
from fedit_server.access.address import advertised
from fedit_server.clock import utc_now
from fedit_server.config import ServerConfig, split_address
from fedit_server.doctor.finding import Finding, Level
from fedit_server.home.folder import Home, Identity, load_identity
from fedit_server.home.last_backup import LastBackup, last_backup
from fedit_server.keys.certificate import WARN_BEFORE, covers, read_chain
from fedit_server.running.listening import check_tls_settings, try_address
from fedit_server.running.probe import Probe
from fedit_server.storage.opening import open_blobs
from fedit_server.storage.place import place_of
from fedit_server.storage.store import Store

_LONG_WITHOUT_BACKUP: Final = timedelta(days=3)


@dataclass(frozen=True)
class Checkup:
    """What was found, the worst first."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """That of the worst finding, 0 if nothing is in the way."""
        return self.findings[0].exit_code if self.findings else 0

    @property
    def trouble(self) -> FeditError | None:
        """The worst finding as an error, if it is one."""
        worst = self.findings[0] if self.findings else None
        if worst is None or not worst.exit_code:
            return None
        return FeditError(worst.what, code=worst.code, where=worst.where, fix=worst.fix)

    def lines(self) -> list[str]:
        """The same in words."""
        found = [line for finding in self.findings for line in finding.lines()]
        errors = sum(finding.level is Level.ERROR for finding in self.findings)
        warnings = sum(finding.level is Level.WARNING for finding in self.findings)
        return [*found, f"{errors} in the way, {warnings} to look at, {len(self.findings)} looked at"]

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"findings": [finding.as_data() for finding in self.findings], "exit": self.exit_code}


async def examine(load: Callable[[], ServerConfig]) -> Checkup:
    """Look at everything. Changes nothing, sends nothing beyond this machine; raises nothing: trouble is a finding."""
    try:
        config = load()
        check_tls_settings(config)
    except FeditError as error:
        return Checkup((Finding.of("settings", error),))
    home = Home(config.home)
    found = [Finding("settings", Level.OK, f"{config.file} and the environment can be read")]
    try:
        identity = load_identity(home)
    except FeditError as error:
        return Checkup(_worst_first([*found, Finding.of("identity", error)]))
    found.append(Finding("identity", Level.OK, "keys and descriptor belong together"))
    found += _folder(home)
    found += _certificate(config, identity)
    found += await _store(config, home)
    found += await _blobs(config, home)
    found += await _address(config, home)
    found += _reachable(config)
    found += _disk(config, home)
    found += _backup(last_backup(home))
    found += _clock()
    return Checkup(_worst_first(found))


def _folder(home: Home) -> Iterator[Finding]:
    open_to_others = [
        path
        for path in (home.root, home.keys, *sorted(home.keys.glob("*")))
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and path.suffix != ".pem"
    ]
    if open_to_others:
        names = ", ".join(path.name for path in open_to_others)
        error = StorageError(
            f"other users of this machine can open {names}", where=str(home.root), fix=f"chmod -R go= {home.keys}"
        )
        yield Finding.of("folder", error)
    else:
        yield Finding("folder", Level.OK, "only its owner can open the data folder")


def _certificate(config: ServerConfig, identity: Identity) -> Iterator[Finding]:
    if config.unix_path is not None:
        yield Finding("certificate", Level.NOTE, "the proxy has it; look at its end there")
        return
    file = config.cert or identity.tls.leaf_files[0]
    if not file.exists() and config.cert is None:
        yield Finding("certificate", Level.NOTE, "it is made when the server starts")
        return
    try:
        leaf = read_chain(file)[0]
    except FeditError as error:
        yield Finding.of("certificate", error)
        return
    left = leaf.not_valid_after_utc - utc_now()
    name = split_address(config.advertise, default_port=0)[0] if config.advertise else "localhost"
    ours = config.cert is None
    if left <= timedelta(0) and not ours:
        over = ConfigError("the certificate has ended", code="C132", where=str(file), fix="fedit-server cert show")
        yield Finding.of("certificate", over)
    elif left < WARN_BEFORE and not ours:
        yield Finding("certificate", Level.WARNING, f"ends in {left.days} days", "fedit-server cert show")
    elif not covers(leaf, name) and not ours:
        yield Finding("certificate", Level.WARNING, f"is not for {name}", "fedit-server cert show")
    else:
        yield Finding("certificate", Level.OK, f"ends in {left.days} days" + (", and renews itself" if ours else ""))


async def _store(config: ServerConfig, home: Home) -> list[Finding]:
    try:
        async with await Store.open(place_of(config, home.database), migrate=False) as store:
            tasks = await store.tasks.tasks()
    except FeditError as error:
        return [Finding.of("database", error)]
    found = [Finding("database", Level.OK, "can be opened, and needs no migration")]
    if not tasks:
        found.append(Finding("tasks", Level.NOTE, "there is none yet", "fedit-server task create FILE"))
    return found


async def _address(config: ServerConfig, home: Home) -> list[Finding]:
    """Whether the port is free, or our own server answers there."""
    running = home.running_server()
    if running is None:
        try:
            await try_address(config)
        except FeditError as error:
            return [Finding.of("address", error)]
        return [Finding("address", Level.NOTE, "no server runs; the address is free", "fedit-server serve")]
    try:
        status, _ = await Probe.of(config).get("/readyz")
    except TransportError as error:
        return [Finding.of("address", error)]
    if status != 200:
        fix = "fedit-server health --verbose"
        return [Finding("address", Level.WARNING, "the server runs and says that it is not ready", fix)]
    return [Finding("address", Level.OK, "the server runs, and is ready")]


def _reachable(config: ServerConfig) -> Iterator[Finding]:
    host, _ = advertised(config, config.port)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        yield Finding("reach", Level.OK, f"invites name {host}")
    else:
        if address.is_loopback:
            fix = "fedit-server serve --listen 0.0.0.0:8443 --advertise HOST"
            yield Finding("reach", Level.WARNING, f"invites name {host}, which is this machine only", fix)
        elif address.is_private:
            fix = "fedit-server serve --advertise HOST, for devices elsewhere"
            yield Finding("reach", Level.NOTE, f"invites name {host}, an address of this network only", fix)
        else:
            yield Finding("reach", Level.OK, f"invites name {host}")
    if config.advertise and not config.unix_path and not config.trusted_proxies:
        says = "no proxy is trusted: behind one, all devices would share its address"
        yield Finding("proxy", Level.NOTE, says, "fedit-server help proxy")


def _disk(config: ServerConfig, home: Home) -> Iterator[Finding]:
    free = shutil.disk_usage(home.root).free
    if free < config.min_free_mb * 10**6:
        error = StorageError(
            f"{free // 10**6} MB are free, and min_free_mb is {config.min_free_mb}", code="S004", where=str(home.root),
            fix=f"df -h {home.root}",
        )  # fmt: skip
        yield Finding.of("disk", error)
    else:
        yield Finding("disk", Level.OK, f"{free // 10**6} MB free")


async def _blobs(config: ServerConfig, home: Home) -> list[Finding]:
    try:
        await open_blobs(config, home).check()
    except FeditError as error:
        return [Finding.of("blobs", error)]
    return [Finding("blobs", Level.OK, "can be read and written")]


def _backup(saved: LastBackup | None) -> Iterator[Finding]:
    fix = "fedit-server backup create FILE"
    if saved is None:
        yield Finding("backup", Level.WARNING, "there is none: keys that are lost strand every device", fix)
        return
    age = timedelta(seconds=utc_now().timestamp() - saved.created_at)
    level = Level.WARNING if age > _LONG_WITHOUT_BACKUP else Level.OK
    yield Finding("backup", level, f"the last one is {age.days} days old", fix)


def _clock() -> Iterator[Finding]:
    """Signed messages carry the time: more than five minutes apart are refused."""
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
        if said == "no":
            yield Finding("clock", Level.NOTE, "no time server sets it", "timedatectl set-ntp true")
        elif said == "yes":
            yield Finding("clock", Level.OK, "a time server sets it")


def _worst_first(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda finding: -finding.level))
