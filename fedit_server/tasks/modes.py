"""Which modes this server offers: masked always, trusted only if its operator said so when the federation was made."""

from typing import Final

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import Mode, Task
from fedit_server.config import ServerConfig
from fedit_server.home.files import storing
from fedit_server.home.folder import Home

MASKED_ONLY: Final = (Mode.MASKED,)


def modes_of(config: ServerConfig) -> tuple[Mode, ...]:
    """Return what a new federation's descriptor says; it stays as it is, because devices pin it."""
    return (Mode.MASKED, Mode.TRUSTED) if config.allow_trusted else MASKED_ONLY


def pinned_modes(home: Home) -> tuple[Mode, ...] | None:
    """Return the modes of the federation in a data folder, None before it is set up."""
    if not home.descriptor.exists():
        return None
    with storing(home.descriptor):
        return decode(FederationDescriptor, home.descriptor.read_bytes()).modes


def check_setting(config: ServerConfig, pinned: tuple[Mode, ...] | None) -> None:
    """Raise ConfigError C038 if the setting asks for what the federation, as its devices pinned it, does not have."""
    if config.allow_trusted and pinned is not None and Mode.TRUSTED not in pinned:
        raise ConfigError(
            "the federation in this data folder was made for masked rounds only; its devices have pinned that, and no"
            " setting changes it",
            code="C038",
            where="allow_trusted",
            fix="fedit-server up --allow-trusted --home NEW_FOLDER --task FILE, and invite the devices anew",
        )


def check_allowed(task: Task, config: ServerConfig, pinned: tuple[Mode, ...] | None) -> None:
    """Raise ConfigError C037 if a task's mode is not one that this server's operator has allowed."""
    if task.round.mode is not Mode.TRUSTED:
        return
    if pinned is not None and Mode.TRUSTED not in pinned:
        where = " --home NEW_FOLDER"
        why = "the federation in this data folder was made for masked rounds only, and its devices have pinned that"
    elif not config.allow_trusted:
        where, why = "", "this server's setting allow_trusted is false"
    else:
        return
    raise ConfigError(
        "mode = trusted is weaker, the server sees every update of every device, so it has to be allowed twice, here"
        f" and on each device; {why}",
        code="C037",
        where=f"{task.label}, [round] mode",
        fix=f"fedit-server up --allow-trusted{where} --task FILE, or leave mode out",
    )
