"""The personal adapter of a task as a PEFT folder, made of what its method keeps on this device alone."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from safetensors.numpy import load_file, save

from fedit_client.adapters.editions import KeptVersion, version_here
from fedit_client.adapters.kept import own_folder
from fedit_client.home.durable import write_atomic
from fedit_client.records.own_part import read_personal
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, MembershipError
from fedit_protocol.methods.personal_parts import is_adapter, personal_shapes
from fedit_protocol.peft_folder import CARD, CONFIG, WEIGHTS, Edition, config_bytes, model_card
from fedit_protocol.task import Task, TaskDocument

FOLDER: Final = "personal"
"""Beside the versions: a PEFT folder for chat, eval and export; made anew whenever it is asked for."""


def personal_here(adapters: Path, document: TaskDocument) -> KeptVersion:
    """Return the personal adapter as a PEFT folder, made of what was kept and, where it shares A, the newest version.

    Raises ConfigError C072 if the task's method keeps none, C073 if what it keeps is no adapter, MembershipError J004
    if nothing was trained yet.
    """
    task = document.task
    if not personal_shapes(document):
        raise ConfigError(f"the method of this task, {task.method.name}, keeps no personal adapter", code="C072",
                          fix="leave out --personal: the newest version is the adapter")  # fmt: skip
    if not is_adapter(document):
        raise ConfigError(f"the method {task.method.name} mixes two adapters anew for each token, which is no adapter",
                          code="C073", fix="fedit-client adapters list, which shows its loss here")  # fmt: skip
    part = read_personal(own_folder(adapters, task.id), document)
    if part is None:
        raise MembershipError("no personal adapter was trained on this device yet", code="J004", fix="fedit-client run")
    newest = version_here(adapters, task.id)
    shared = load_file(newest.folder / WEIGHTS)
    content = save({**shared, **part.tensors}, {"format": "pt"})
    folder = adapters / task.id / FOLDER
    edition = replace(newest.edition, digest=digest_of(content))
    write_atomic(folder / WEIGHTS, content)
    write_atomic(folder / CONFIG, config_bytes(task))
    write_atomic(folder / CARD, _card(task, edition).encode())
    return KeptVersion(newest.version, folder, edition)


def adapter_here(
    adapters: Path, document: TaskDocument, version: int | None = None, *, personal: bool = False
) -> KeptVersion:
    """Return the version that was asked for, the newest if none is named, or the personal adapter.

    Raises MembershipError J004, ConfigError C072, and U001 for a version of the personal adapter: there is one.
    """
    if not personal:
        return version_here(adapters, document.task.id, version)
    if version is not None:
        raise ConfigError("there is one personal adapter, and no versions of it", code="U001",
                          fix="leave out --version, or --personal")  # fmt: skip
    return personal_here(adapters, document)


def personal_line(adapters: Path, document: TaskDocument) -> str | None:
    """Return the personal adapter in one line, None where there is none."""
    part = read_personal(own_folder(adapters, document.task.id), document) if personal_shapes(document) else None
    if part is None:
        return None
    loss = "" if part.loss is None else f" · loss {part.loss:.3f} on your own rows"
    kept = own_folder(adapters, document.task.id)
    return f"personal · trained beside version {part.version}{loss} · {kept} (never leaves this machine)"


def _card(task: Task, edition: Edition) -> str:
    """The card of the newest version, and under its heading that this one is not it."""
    note = "> **Personal.** Part of this adapter was trained on the rows of one device and shared with nobody.\n"
    heading = f"# {task.title}, adapter version {edition.version}\n"
    return model_card(task, edition).replace(heading, f"{heading}\n{note}", 1)
