"""`fedit-client bugreport`: what helps to find a bug, redacted, in a zip that stays here until its owner sends it."""

import getpass
import io
import ipaddress
import json
import platform
import re
import socket
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fedit_client.base.model import is_hub_id
from fedit_client.config import ClientConfig
from fedit_client.data.remembered import load_sources
from fedit_client.doctor import Checkup
from fedit_client.home.durable import write_atomic
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import Membership, load_membership
from fedit_client.records.history import History
from fedit_client.settings.origin import HIDDEN, settings_of
from fedit_client.settings.project_file import Loaded
from fedit_protocol.errors import ConfigError, FeditError

_LOG_LINES: Final = 400
_ROUNDS: Final = 50
_PACKAGES: Final = (
    "fedit", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "numpy", "aiohttp",
    "cryptography", "pydantic", "typer", "datasets", "gguf", "huggingface-hub", "keyring",
)  # fmt: skip

# What may stand in any text: links with their codes, pins and keys, addresses, mail, and whole paths.
_PATTERNS: Final = (
    (re.compile(r"fedit://\S+"), "<invite>"),
    (re.compile(r"\b(?:[0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}\b"), "<code>"),
    (re.compile(r"https?://[^\s'\"<>]+"), "<address>"),
    (re.compile(r"\b[0-9a-fA-F]{24,}\b"), "<digits>"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}\b"), "<token>"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"), "<mail>"),
    (re.compile(r"(?<![\d.])(?!0\.0\.0\.0|127\.0\.0\.1)\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)"), "<ip>"),
    (re.compile(r"(?<![\w.])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b"), "<ip>"),
    (re.compile(r"\[<ip>\]:\d+|<ip>:\d+"), "<ip>"),
    (re.compile(r"(?<![\w./-])[A-Za-z0-9][\w-]*(?:\.[\w-]+)*\.(?!py:)[A-Za-z][\w-]*:\d{1,5}(?![\w.])"), "<address>"),
    (re.compile(r"(?<![\w./:-])(?!localhost:)[A-Za-z][\w-]*:\d{4,5}(?![\w.])"), "<address>"),
)
_MAYBE_IPV6: Final = re.compile(r"(?<![\w:.])(?=[^:\s]*:[^:\s]*:)[0-9A-Fa-f:.]{2,45}(?:%[\w-]+)?(?!\w)")
_ROOT: Final = r"(?:[A-Za-z]:[\\/]|~?/|<home>[\\/]|<folder>[\\/])"
_PART: Final = r"[^\s'\",:;()<>\[\]]"
# Between quotes all of it; else words after a space belong to it while one holds a separator or ends as a file does.
_PATH: Final = re.compile(
    rf"(?<=')(?={_ROOT})[^'\n]+(?=')|(?<=\")(?={_ROOT})[^\"\n]+(?=\")"
    rf"|{_ROOT}{_PART}+(?:(?: {_PART}+){{0,4}}? {_PART}*[/\\]{_PART}*)*"
    rf"(?:(?: {_PART}+){{0,4}}? {_PART}*\.\w{{1,8}}(?!\w))?"
)
_IN_PLACE: Final = "\ue000"
"""Stands for the public base while paths are taken out; a letter of nobody's alphabet."""
_KEPT_BELOW: Final = ("/fedit_client/", "/fedit_protocol/", "/site-packages/", "/lib/python")


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
        """Write the archive, for its owner only; raises ConfigError U010 if something is there, StorageError."""
        if path.exists():
            raise ConfigError(f"{path} is there already", code="U010", fix="fedit-client bugreport --out OTHER.zip",
                              again="--out OTHER.zip")  # fmt: skip
        write_atomic(path, self.as_zip())


class Redactor:
    """Takes names, addresses, keys and paths out of texts."""

    def __init__(self, words: Iterable[tuple[str, str]], base: str = "") -> None:
        """`words` are texts that must not appear, each with what stands in for it; `base` is a hub id that may."""
        kept = {(word, instead) for word, instead in words if len(word) > 1}
        kept |= {(word.replace("\\", "\\\\"), instead) for word, instead in kept}  # as JSON writes it
        known = sorted(kept, key=lambda pair: -len(pair[0]))
        self._words = [(re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"), put) for word, put in known]
        self._base = base if is_hub_id(base) else ""
        # Not within a longer path or address.
        self._kept = re.compile(rf"(?<![\w./\\-]){re.escape(self._base)}(?![\w/\\-])")

    @classmethod
    def of_home(cls, paths: Paths, membership: Membership | None) -> "Redactor":
        """What is known of this machine and of what it joined."""
        host = socket.gethostname()
        places_here = {
            str(place): "<folder>" for place in (paths.state, paths.data, paths.config, paths.cache, paths.log)
        }
        words = [*({str(Path.home()): "<home>"} | places_here).items()]
        words += [
            (host, "<host>"),
            (host.partition(".")[0], "<host>"),
            (platform.node(), "<host>"),
            (_user(), "<user>"),
        ]
        if membership is not None:
            words += [(membership.host, "<server>"), (membership.label, "<label>")]
            words += [(membership.federation.descriptor.name, "<federation>")]
        try:
            places = [source.place for source in load_sources(paths)]
        except FeditError:
            places = []
        words += [(name, "<rows>") for place in places for name in (place, Path(place).name)]
        base = membership.task_document.task.base.model if membership else ""
        return cls(words, "" if Path(base).is_dir() else base)

    def text(self, text: str) -> str:
        """Return a text without them."""
        for pattern, instead in self._words:  # first of all: a known folder may have spaces in it
            text = pattern.sub(instead, text)
        if self._base:
            text = self._kept.sub(_IN_PLACE, text)
        text = _MAYBE_IPV6.sub(_short_ip, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return _PATH.sub(_short_path, text).replace(_IN_PLACE, self._base)


def bug_report(loaded: Loaded, checkup: Checkup, moment: datetime) -> Report:
    """Gather versions, settings, doctor's findings, facts of rounds and the end of the log; nothing is sent.

    No key, certificate, row, name, address or path is among them, but for the hub id of the task's base. Raises
    nothing: what cannot be read is left out.
    """
    config = loaded.config
    membership = _membership(config.paths)
    redactor = Redactor.of_home(config.paths, membership)
    files = {
        "about.json": _json(_about(moment, membership)),
        "settings.json": _json(_settings(loaded)),
        "doctor.txt": "\n".join(checkup.lines()) + "\n",
        "rounds.json": _json(_rounds(config)),
        "log.txt": _log(config.paths),
    }
    return Report({name: redactor.text(text) for name, text in files.items()})


def _about(moment: datetime, membership: Membership | None) -> dict[str, Any]:
    task = membership.task_document.task if membership else None
    return {
        "made": moment.isoformat(timespec="minutes"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "joined": task is not None,
        "task": None if task is None else {
            "label": task.label, "mode": task.round.mode.value, "base": task.base.model,
            "quantization": task.base.quantization.value, "cutoff_tokens": task.prompt.cutoff_tokens,
        },
    }  # fmt: skip


def _settings(loaded: Loaded) -> list[dict[str, Any]]:
    """Every setting that is not its default; a path or an address is a private one here."""
    try:
        found = settings_of(loaded, {})
    except FeditError as error:
        return [{"error": str(error)}]
    changed = [setting for setting in found if setting.source != "default"]
    private = {"home", "server", "model"}
    return [
        {"key": one.key, "value": HIDDEN if one.key in private else one.as_data()["value"], "source": one.source}
        for one in changed
    ]


def _rounds(config: ClientConfig) -> list[dict[str, Any]]:
    """What happened in the last rounds; no digests, so that nobody can tell which ones they were."""
    try:
        entries = History(config.paths.history).entries()[-_ROUNDS:]
    except FeditError as error:
        return [{"error": str(error)}]
    kept = {"round_no", "mode", "outcome", "reason", "cohort", "honest", "survivors", "bytes_up", "bytes_down",
            "adapter_before", "adapter_after"}  # fmt: skip
    return [entry.model_dump(mode="json", include=kept) | {"seconds": entry.ended_at - entry.started_at}
            for entry in entries]  # fmt: skip


def _log(paths: Paths) -> str:
    try:
        lines = paths.log_file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return "no log\n"
    return "\n".join(lines[-_LOG_LINES:]) + "\n"


def _membership(paths: Paths) -> Membership | None:
    try:
        return load_membership(paths.membership_file)
    except FeditError:
        return None


def _short_ip(found: re.Match[str]) -> str:
    """An address of IPv6, with what ends a sentence behind it; this machine's own is nobody's secret."""
    text = found[0].rstrip(":.") or found[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return found[0]
    return found[0] if address.is_loopback or address.is_unspecified else "<ip>" + found[0].removeprefix(text)


def _short_path(found: re.Match[str]) -> str:
    """A path of ours keeps its end, which names the code; any other one is private."""
    text = found[0].replace("\\", "/")
    for part in _KEPT_BELOW:
        if part in text and " " not in text:
            return "…" + text[text.rindex(part) :]
    return "<path>"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
