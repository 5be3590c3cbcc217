"""What a fleet was asked for: one file in its folder, from which it goes on and from which it can be repeated."""

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self

import tomlkit

from fedit_client.home.durable import translating, write_atomic
from fedit_protocol.errors import FleetError

LOCAL: Final = "local"
"""Instead of a server's address: start one of the fleet's own."""

SETTINGS_FILE: Final = "fleet.toml"
_SAYS_WHERE: Final = "server"
_AFTERWARDS: Final = "baselines"
"""Changes nothing of what has been run, so it may be asked for later."""


@dataclass(frozen=True)
class FleetSettings:
    """All that decides a fleet, but for the task. `server` keeps no invite code: it is a secret.

    `data` is one source as `data add` takes it; `partition`, `availability` and `speeds` are forms as the command takes
    them; `dropout` is the probability with which a client vanishes in a round.
    """

    server: str
    data: str
    clients: int
    partition: str = "dirichlet:0.5"
    seed: int = 0
    dropout: float = 0.0
    availability: str = "always"
    speeds: str = "same"
    processes: int = 1
    ray: bool = False
    device: str = "auto"
    threads: int = 0
    """Of each training process; 0 means what is free."""
    test_rows: int = 10
    """Rows of each category that no client gets."""
    model: str = ""
    rounds: int = 0
    """Committed rounds after which the fleet ends; 0 means the task's."""
    cohort: int = 0
    """Of a server of the fleet's own: clients of a round; 0 means all, or the task's."""
    baselines: str = ""
    """What the federation is set beside when it has ended: `local`, `central`, or both with a comma."""
    seeds: int = 1
    """Fleets of a series, each with a seed of its own, from `seed` on."""
    began_at: float = 0.0
    """When it began for the first time, in seconds since 1970, UTC."""

    def save(self, folder: Path) -> None:
        """Write the file."""
        said = tomlkit.dumps({"schema": "fedit.fleet/1", **asdict(self)})
        write_atomic(folder / SETTINGS_FILE, said.encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the file; raises FleetError F004 if there is no fleet in this folder, or none that can be read."""
        file = folder / SETTINGS_FILE
        with translating(file):
            raw = file.read_bytes() if file.exists() else None
        if raw is None:
            raise FleetError("there is no fleet here that could go on", code="F004", where=str(folder),
                             fix="fedit-client fleet --out FOLDER, without --resume")  # fmt: skip
        try:
            values = tomllib.loads(raw.decode())
            return cls(**{name: value for name, value in values.items() if name != "schema"})
        except (ValueError, TypeError) as error:
            raise FleetError("the settings of this fleet cannot be read", code="F004", where=str(file),
                             fix="restore the file, or begin anew in another folder") from error  # fmt: skip

    def going_on(self, given: dict[str, Any]) -> Self:
        """Return this for a fleet that goes on; raises FleetError F004 if an option asks for something else now."""
        known = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        fixed = {name: value for name, value in given.items() if name not in {_SAYS_WHERE, _AFTERWARDS}}
        other = [name for name, value in fixed.items() if value != known[name]]
        if other:
            name = other[0]
            raise FleetError(f"this fleet was begun with {name} = {known[name]}, and cannot go on with {given[name]}",
                             code="F004", where=f"--{name.replace('_', '-')}",
                             fix="fedit-client fleet --resume --out FOLDER, without it")  # fmt: skip
        return replace(self, baselines=given.get(_AFTERWARDS, self.baselines))
