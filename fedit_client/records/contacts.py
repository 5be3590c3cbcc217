"""Which hosts this program talks to, why, and when it last did: the whole list, because it talks to no others."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedit_client.home.durable import translating, write_atomic

HUB: Final = "model hub"
SERVER: Final = "server"
PACKAGES: Final = "the package registry of your pip"
JUDGE: Final = "judge"
INSTALLER: Final = "the package sources of your uv"
RAY: Final = "Ray cluster"
CONTACTS: Final = "contacts.json"
_HUB_HOST: Final = "huggingface.co"
_NOT_OFTENER_S: Final = 60.0


class Contacts:
    """A small file in the cache with the newest contact of each host; written at most once a minute per host."""

    def __init__(self, path: Path) -> None:
        """Write nothing yet."""
        self._path = path
        self._noted: dict[str, float] = {}

    def note(self, host: str, purpose: str) -> None:
        """Remember that a host is contacted now; raises StorageError."""
        now = time.time()
        if now - self._noted.get(host, 0.0) < _NOT_OFTENER_S:
            return
        self._noted[host] = now
        known = self.all()
        known[host] = {"purpose": purpose, "at": int(now)}
        write_atomic(self._path, json.dumps(known, indent=2).encode() + b"\n", flush=False)

    def all(self) -> dict[str, dict[str, Any]]:
        """Return host → purpose and time; a damaged file counts as empty, for nothing depends on it."""
        with translating(self._path):
            if not self._path.exists():
                return {}
            raw = self._path.read_bytes()
        try:
            found = json.loads(raw)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def note_server(cache: Path, host: str, port: int) -> None:
    """Remember that a server is talked to now; raises StorageError."""
    Contacts(cache / CONTACTS).note(f"{host}:{port}", SERVER)


def note_hub(cache: Path) -> None:
    """Remember that the hub is about to be asked, unless its owner has said that it may not be; raises StorageError."""
    if not is_offline():
        Contacts(cache / CONTACTS).note(hub_host(), HUB)


def note_judge(cache: Path, host: str) -> None:
    """Remember that a judge is about to be asked; raises StorageError."""
    Contacts(cache / CONTACTS).note(host, JUDGE)


def note_installer(cache: Path) -> None:
    """Remember that uv is about to fetch packages; raises StorageError."""
    Contacts(cache / CONTACTS).note(INSTALLER, INSTALLER)


def note_ray(cache: Path) -> None:
    """Remember that the cluster of RAY_ADDRESS, if it names one, is about to train; raises StorageError."""
    if address := os.environ.get("RAY_ADDRESS"):
        Contacts(cache / CONTACTS).note(address, RAY)


@dataclass(frozen=True)
class Host:
    """One host: why it is contacted, and when it last was (None: never, as far as is known here)."""

    host: str
    purpose: str
    why: str
    last_at: int | None

    def line(self) -> str:
        """The host in words."""
        last = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.last_at)) if self.last_at else "never"
        return f"{self.host}  last contacted: {last}\n    {self.why}"


def every_host(known: dict[str, dict[str, Any]], server: str | None, base: str | None) -> list[Host]:
    """Return every host that this program contacts: `server` is the joined one, `base` its task's model, if any."""
    joined = "the server that you joined: check-ins, rounds, adapters, uploads; its fields stand in PRIVACY.md"
    earlier = "a server that you joined or looked at before; nothing is sent to it any more"
    servers = [name for name, contact in known.items() if contact.get("purpose") == SERVER]
    hosts = [Host(server, SERVER, joined, _at(known, server))] if server else []
    hosts += [Host(name, SERVER, earlier, _at(known, name)) for name in servers if name != server]
    hub = (
        "the model hub: asked for a base model that is not on this machine, and for rows that you name by their hub id"
    )
    asked = "not asked now: HF_HUB_OFFLINE is set" if is_offline() else hub
    hosts.append(Host(hub_host(), HUB, asked, _at(known, hub_host())))
    setup = "only by fedit-client setup, after your yes: PyTorch and its libraries, from where your uv fetches them"
    hosts.append(Host(INSTALLER, INSTALLER, setup, _at(known, INSTALLER)))
    if PACKAGES in known or base in {None, _PACKAGED}:
        why = f"only for {_PACKAGED}, the demo's model, where neither a folder, a cache nor the hub has it"
        hosts.append(Host(PACKAGES, PACKAGES, why, _at(known, PACKAGES)))
    judge = "a judge that you had asked: the questions and answers of the files that you named, after your yes"
    hosts += [Host(name, JUDGE, judge, _at(known, name)) for name, to in known.items() if to.get("purpose") == JUDGE]
    ray = "a Ray cluster that RAY_ADDRESS named: its machines train for fedit-client fleet --ray, and read the rows"
    hosts += [Host(name, RAY, ray, _at(known, name)) for name, to in known.items() if to.get("purpose") == RAY]
    return hosts


_PACKAGED: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"


def hub_host() -> str:
    """Return the hub that this machine is set up for."""
    address = os.environ.get("HF_ENDPOINT", "") or f"https://{_HUB_HOST}"
    return address.partition("://")[2].partition("/")[0] or _HUB_HOST


def is_offline() -> bool:
    """Whether the owner has said that no hub may be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _at(known: dict[str, dict[str, Any]], host: str) -> int | None:
    at = known.get(host, {}).get("at")
    return at if isinstance(at, int) else None
