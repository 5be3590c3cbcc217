"""Every setting with its value and the source it comes from: `config show --origin`, `get`."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from pydantic.fields import FieldInfo

from fedit_client.config import ClientConfig, SettingsFile, environment_variable
from fedit_client.membership.joined import Membership, load_membership
from fedit_client.settings.project_file import Loaded, leaves, states, value_of
from fedit_protocol.errors import ConfigError, StorageError

HIDDEN: Final = "***"


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, its value (`***` for a secret), where that comes from, what it means."""

    key: str
    value: Any
    source: str
    default: Any
    meaning: str

    @property
    def text(self) -> str:
        """The value for people: `client.toml`'s words, a dash for none."""
        return shown(self.value)

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"key": self.key, "value": plain(self.value), "source": self.source,
                "default": plain(self.default), "meaning": self.meaning}  # fmt: skip


def settings_of(loaded: Loaded, flags: dict[str, Any]) -> tuple[Setting, ...]:
    """Return all settings, in the order of `config schema`; raises ConfigError, StorageError."""
    config, user = loaded.config, SettingsFile.read(loaded.config.paths.settings_file)
    joined = _joined(config)
    return tuple(_setting(key, field, loaded, flags, user, joined) for key, field in leaves(ClientConfig))


def find_setting(settings: tuple[Setting, ...], key: str) -> tuple[Setting, ...]:
    """Return the setting of a name, or all of a table; raises ConfigError C001 with the nearest name."""
    found = tuple(setting for setting in settings if setting.key == key or setting.key.startswith(f"{key}."))
    if not found:
        near = get_close_matches(key, [setting.key for setting in settings], n=1)
        fix = f"fedit-client get {near[0]}" if near else "fedit-client config show"
        raise ConfigError(f"there is no setting {key!r}", code="C001", where="command line", fix=fix)
    return found


def shown(value: Any) -> str:
    """A value as a table shows it."""
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple | list):
        return ", ".join(str(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting's value is never shown."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("secret") is True


def _setting(
    key: str,
    field: FieldInfo,
    loaded: Loaded,
    flags: dict[str, Any],
    user: SettingsFile,
    joined: dict[str, tuple[Any, str]],
) -> Setting:
    value, source = value_of(loaded.config, key), "default"
    if states(flags, key):
        source = "flag"
    elif variable := _variable(key):
        source = variable
    elif loaded.file is not None and states(loaded.file.values, key):
        source = str(loaded.file.path)
    elif states(user.values, key):
        source = "client.toml"
    elif key in joined:
        value, source = joined[key]
    if is_secret(field) and value:
        value = HIDDEN
    default = field.get_default(call_default_factory=True)
    return Setting(key, value, source, default, field.description or "")


def _variable(key: str) -> str | None:
    """The variable that states a setting, or its whole table as JSON."""
    table = key.rpartition(".")[0]
    return environment_variable(key) or (environment_variable(table) if table else None)


def _joined(config: ClientConfig) -> dict[str, tuple[Any, str]]:
    """What was said when joining, and what the task says, below every file; nothing from a damaged membership."""
    try:
        membership: Membership | None = load_membership(config.paths.membership_file)
    except StorageError:
        return {}
    if membership is None:
        return {}
    base = membership.task_document.task.base.model
    model = (membership.model, "join") if membership.model else (base, f"task {membership.consent}")
    found: dict[str, tuple[Any, str]] = {"model": model}
    if membership.device != "auto":
        found["device.prefer"] = (membership.device, "join")
    if membership.threads is not None:
        found["device.threads"] = (membership.threads, "join")
    return found
