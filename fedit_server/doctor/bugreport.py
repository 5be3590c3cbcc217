"""`fedit-server bugreport`: what helps to find a bug, redacted, in a zip that stays here until somebody sends it."""

import io
import json
import platform
import zipfile
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fedit_protocol.errors import ConfigError, FeditError
from fedit_server.config import ServerConfig
from fedit_server.doctor.checkup import Checkup
from fedit_server.doctor.redaction import Redactor
from fedit_server.home.files import write_atomically
from fedit_server.home.folder import Home, load_identity
from fedit_server.settings import HIDDEN, settings_of
from fedit_server.storage.place import place_of
from fedit_server.storage.store import Store

_ROUNDS: Final = 50
_PACKAGES: Final = (
    "fedit", "aiohttp", "aiosqlite", "alembic", "asyncpg", "cryptography", "numpy", "obstore", "prometheus-client",
    "pydantic", "sqlalchemy", "structlog", "typer",
)  # fmt: skip
_PRIVATE: Final = frozenset({"home", "advertise", "cert", "key", "tls_authority", "trusted_proxies", "name"})
"""Settings whose value is an address, a path or a name: only that they were set is told."""


@dataclass(frozen=True)
class Report:
    """The files of a report by name, each redacted already."""

    files: dict[str, str]

    def as_zip(self) -> bytes:
        """Return the archive."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in self.files.items():
                archive.writestr(name, text)
        return target.getvalue()

    def lines(self) -> list[str]:
        """All of it, as it would be handed on."""
        return [line for name, text in self.files.items() for line in (f"== {name}", *text.splitlines(), "")]

    def write(self, path: Path) -> None:
        """Write the archive, for its owner only; raises ConfigError U135 if something is there, StorageError."""
        if path.exists():
            raise ConfigError(f"{path} is there already", code="U135", fix="fedit-server bugreport --out OTHER.zip")
        write_atomically(path, self.as_zip())


async def bug_report(config: ServerConfig, checkup: Checkup, moment: datetime) -> Report:
    """Gather versions, settings, doctor's findings, and how the last rounds ended; nothing is sent.

    No key, code, token, address, name or path is among them, and nothing of a single device. What cannot be read is
    left out.
    """
    redactor = Redactor.of_machine(_known_words(config))
    files = {
        "about.json": _json(_about(moment)),
        "settings.json": _json(_settings(config)),
        "doctor.txt": "\n".join(checkup.lines()) + "\n",
        "rounds.json": _json(await _rounds(config)),
    }
    return Report({name: redactor.text(text) for name, text in files.items()})


def _known_words(config: ServerConfig) -> list[tuple[str, str]]:
    words = [(str(config.home), "<folder>"), (config.advertise.partition(":")[0], "<server>"), (config.name, "<name>")]
    try:
        words.append((load_identity(Home(config.home)).descriptor.name, "<federation>"))
    except FeditError:
        return words
    return words


def _about(moment: datetime) -> dict[str, Any]:
    return {
        "made": moment.isoformat(timespec="minutes"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _settings(config: ServerConfig) -> list[dict[str, Any]]:
    changed = [one for one in settings_of(config, config.origin) if one.source != "default"]
    return [{"key": one.key, "value": HIDDEN if one.key in _PRIVATE else one.as_data()["value"]} for one in changed]


async def _rounds(config: ServerConfig) -> list[dict[str, Any]]:
    """How the last rounds went: states, stages, counts, reasons; no ids and no figures of what was learned."""
    try:
        async with await Store.open(place_of(config, Home(config.home).database), migrate=False) as store:
            rows = (await store.rounds.rounds(None))[-_ROUNDS:]
    except FeditError as error:
        return [{"error": str(error)}]
    return [
        {
            "round": row.round_no,
            "state": row.state,
            "reason": row.reason,
            "seconds": None if row.ended_at is None else row.ended_at - row.opened_at,
            "cohorts": [{"stage": one.view.stage, **one.view.progress} for one in row.cohorts],
        }
        for row in rows
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
