"""Writes an adapter version as the folder that the operator finds: whole, or not at all."""

import os
import shutil
from pathlib import Path
from typing import Final

from fedit_protocol.method_rules import TRAITS
from fedit_protocol.methods import State
from fedit_protocol.peft_folder import CARD, CONFIG, FACTORS, WEIGHTS, Edition, config_bytes, model_card
from fedit_protocol.peft_form import peft_form, rank_of
from fedit_protocol.task import TaskDocument
from fedit_server.adapters.tensors import from_safetensors, loadable, to_safetensors
from fedit_server.home.files import flush_folder, make_private_folder, storing, write_atomically

_READABLE: Final = 0o644


def write_peft_folder(
    folder: Path, document: TaskDocument, content: bytes, edition: Edition, public: State | None = None
) -> None:
    """Write the folder so that it appears whole or not at all; one that a crash left behind is replaced.

    `content` is what travels, `public` what devices know besides it; where PEFT loads something built from it, or its
    file holds a side delta too, both are there.
    """
    make_private_folder(folder.parent)
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    make_private_folder(beside)
    for name, body in peft_files(document, content, edition, public or {}).items():
        write_atomically(beside / name, body, mode=_READABLE)
    with storing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)  # noqa: PTH105  Path.replace refuses folders on some systems
        flush_folder(folder.parent)


def peft_files(document: TaskDocument, content: bytes, edition: Edition, public: State) -> dict[str, bytes]:
    """Return the files of a version's folder by name."""
    card = model_card(document.task, edition).encode()
    has_side = bool(public) and TRAITS[document.task.method.name].side
    form = peft_form(document, from_safetensors(document.layout, content), public) if has_side else None
    if form is None:
        files = {WEIGHTS: loadable(document, content), CONFIG: config_bytes(document.task), CARD: card}
        return files if document.lora is None else {**files, FACTORS: content}
    layout, vector = form
    config = config_bytes(document.task, rank_of(layout))
    return {FACTORS: content, WEIGHTS: to_safetensors(layout, vector), CONFIG: config, CARD: card}
