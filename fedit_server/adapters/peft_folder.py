"""Writes an adapter version as the folder that the operator finds: whole, or not at all."""

import os
import shutil
from pathlib import Path
from typing import Final

from fedit_protocol.peft_folder import CARD, CONFIG, FACTORS, WEIGHTS, Edition, config_bytes, model_card
from fedit_protocol.task import TaskDocument
from fedit_server.adapters.tensors import loadable
from fedit_server.home.files import flush_folder, make_private_folder, storing, write_atomically

_READABLE: Final = 0o644


def write_peft_folder(folder: Path, document: TaskDocument, content: bytes, edition: Edition) -> None:
    """Write the folder so that it appears whole or not at all; one that a crash left behind is replaced.

    `content` is what travels; where PEFT loads something built from it, both are there.
    """
    task = document.task
    make_private_folder(folder.parent)
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    make_private_folder(beside)
    files = {WEIGHTS: loadable(document, content), CONFIG: config_bytes(task), CARD: model_card(task, edition).encode()}
    if document.lora is not None:
        files[FACTORS] = content
    for name, body in files.items():
        write_atomically(beside / name, body, mode=_READABLE)
    with storing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)  # noqa: PTH105  Path.replace refuses folders on some systems
        flush_folder(folder.parent)
