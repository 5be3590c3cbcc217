"""All checks in one go: settings first, for everything else hangs on them."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedit_client.config import ClientConfig, config_paths
from fedit_client.doctor import files, machine, network, repair, service
from fedit_client.doctor.finding import Finding, Level, ok
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import Membership, load_membership
from fedit_client.service.systems import system_here
from fedit_protocol.errors import FeditError


@dataclass(frozen=True)
class Checkup:
    """What was found, the worst first, and what was repaired."""

    findings: tuple[Finding, ...]
    repaired: tuple[str, ...] = ()

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
        count = f"{errors} in the way, {warnings} to look at, {len(self.findings)} looked at"
        return [*(f"repaired {what}" for what in self.repaired), *found, count]

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        findings = [finding.as_data() for finding in self.findings]
        return {"findings": findings, "repaired": list(self.repaired), "exit": self.exit_code}


async def examine(
    home: Path | None, load: Callable[[], ClientConfig], *, fix: bool = False, online: bool = False
) -> Checkup:
    """Look at everything; with `fix` repair first what is safe, with `online` also talk to server and hub.

    Nothing is sent about this device, and without `online` nothing at all. Raises nothing: trouble is a finding.
    """
    paths = config_paths(home)
    repaired = tuple(repair.repair(paths)) if fix else ()
    found: list[Finding] = [*files.check_homes(paths)]
    try:
        config = load()
    except FeditError as error:
        config = None
        found.append(Finding.of("settings", error, "a setting that cannot be read stops every command"))
    else:
        found.append(ok("settings", f"{paths.settings_file} and the environment can be read"))
        found += files.check_environment(os.environ)
    membership = _membership(paths, found)
    found += machine.check_machine(config, membership)
    found += files.check_identity(paths, membership)
    found += files.check_data(paths, membership)
    found += files.check_leftovers(paths)
    found += service.check_service(system_here(), membership)
    if online:
        found += await network.check_network(config, membership, datetime.now(UTC))
    return Checkup(_worst_first(found), repaired)


def _membership(paths: Paths, found: list[Finding]) -> Membership | None:
    try:
        membership = load_membership(paths.membership_file)
    except FeditError as error:
        found.append(Finding.of("membership", error))
        return None
    if membership is None:
        found.append(
            Finding("membership", Level.NOTE, "nothing is joined yet", fix="fedit-client join --server 'fedit://…'")
        )
    else:
        found.append(ok("membership", f"joined {membership.consent}"))
    return membership


def _worst_first(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda finding: -finding.level))
