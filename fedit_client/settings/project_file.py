"""`--config FILE`, or `./fedit.toml`: settings beside one piece of work, above client.toml and below the environment.

A file named on the command line is its owner's word. A `./fedit.toml` merely lies where a command was started, so it is
announced; it may state only what `strictness.HARMLESS` lists, and politeness or limits where its value is the stricter.
"""

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedit_client.config import ClientConfig, SettingsFile, load_config
from fedit_client.settings.strictness import may_lie_around, may_loosen
from fedit_protocol.errors import ConfigError

PROJECT_FILE: Final = "fedit.toml"


@dataclass(frozen=True)
class Loaded:
    """The settings in force, and the file beside the work that had a say: what was told about it, what it states."""

    config: ClientConfig
    file: SettingsFile | None = None
    notices: tuple[str, ...] = ()


def load_settings(home: Path | None, flags: dict[str, Any], named: Path | None, folder: Path) -> Loaded:
    """Merge all sources; `named` is the file of `--config`, else `folder` may hold a fedit.toml.

    Raises ConfigError C001, C002 (also for a named file that is missing), StorageError.
    """
    found = _load(home, flags, named, folder)
    found.config.read_again_by(lambda: _load(home, flags, named, folder).config)
    return found


def _load(home: Path | None, flags: dict[str, Any], named: Path | None, folder: Path) -> Loaded:
    if named is not None:
        file = _read(named)
        if not named.exists():
            raise ConfigError("the settings file does not exist", code="C002", where=str(named),
                              fix="fedit-client --config FILE status", again="--config FILE")  # fmt: skip
        return Loaded(load_config(home, flags, file), file)
    lying = folder / PROJECT_FILE
    if not lying.exists():
        return Loaded(load_config(home, flags))
    if _is_strangers(lying):
        notice = f"{lying} belongs to another user of this machine, so it is not read"
        return Loaded(load_config(home, flags), None, (notice,))
    return _with_lying_file(home, flags, _read(lying))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every single setting with its dotted name."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def value_of(config: BaseModel, key: str) -> Any:
    """Return a setting by its dotted name."""
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


def states(values: Mapping[str, Any], key: str) -> bool:
    """Say whether a file or the flags name a setting."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _read(path: Path) -> SettingsFile:
    file = SettingsFile.read(path)
    if "home" in file.values:
        raise ConfigError("home cannot stand in a file: it says where the files are", code="C001", where=str(path),
                          fix=f"correct or remove home in {path}; it is an option: --home DIR")  # fmt: skip
    return file


def _with_lying_file(home: Path | None, flags: dict[str, Any], file: SettingsFile) -> Loaded:
    alone, both = load_config(home, flags), load_config(home, flags, file)
    dropped = [
        key
        for key, field in leaves(ClientConfig)
        if states(file.values, key)
        and (not may_lie_around(key) or may_loosen(key, value_of(alone, key), value_of(both, key), field))
    ]
    kept = SettingsFile(file.path, _without(file.values, dropped))
    notices = [f"settings of this folder are in force: {file.path}"]
    if dropped:
        notices[0] += f"; left out, for such a file may not set or loosen them: {', '.join(dropped)}"
    return Loaded(load_config(home, flags, kept) if dropped else both, kept, tuple(notices))


def _without(values: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    kept = deepcopy(values)
    for key in keys:
        *tables, name = key.split(".")
        place = kept
        for table in tables:
            place = place[table]
        del place[name]
    return kept


def _is_strangers(path: Path) -> bool:
    """Like a shared folder's: whoever may write there would otherwise set up everybody's client."""
    return os.name == "posix" and path.stat().st_uid not in {os.geteuid(), 0}
