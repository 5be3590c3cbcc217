"""The side delta on a device: a second, frozen adapter beside the one that is trained, y = W x + s·B(Ax) + U(Vx).

It has no gradient, dropout or decay, is computed in the compute type, and is put on for one piece of work and taken off
again: a base that stays loaded serves other versions and other tasks afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file
from torch.nn.functional import linear

from fedit_client.training.model import load_tensors, write_adapter
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.errors import ModelError
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.side_delta import SIDE, checked, read
from fedit_protocol.peft_folder import FACTORS, STATE, WEIGHTS
from fedit_protocol.task import TaskDocument


@contextmanager
def beside(model: Any, layout: AdapterLayout, state: Path | None) -> Iterator[None]:
    """Let the model's adapted layers add the side delta of a state file, if there is one in it, while this lasts.

    It goes off with the adapter: the base alone is the base alone. Raises ModelError M004 if it does not fit.
    """
    side, handles = read(load_file(state), SIDE) if state is not None else {}, []
    if side:
        modules = dict(model.named_modules())
        for pair in lora_pairs(layout):
            try:
                left, right = checked(pair, side)
            except ValueError as error:
                fix = "ask the operator about the task; nothing of this file is used"
                raise ModelError(str(error), code="M004", where=str(state), fix=fix) from error
            if len(right):
                up, down = (torch.from_numpy(each).float() for each in (left, right))
                handles.append(modules[pair.path].register_forward_hook(_Side(up, down)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def worn(model: Any, document: TaskDocument, adapter: Path | None) -> Iterator[None]:
    """Put a version on while this lasts, its folder or a file of tensors, with its side delta; None changes nothing.

    Raises ModelError M004 if it does not fit.
    """
    if adapter is None:
        yield
        return
    folder = adapter if adapter.is_dir() else adapter.parent
    is_kept = document.lora is None and (adapter.is_dir() or adapter.name in (WEIGHTS, FACTORS))
    has_side = is_kept and (folder / FACTORS).exists()
    plain = folder / WEIGHTS if adapter.is_dir() else adapter
    write_adapter(model, load_tensors(folder / FACTORS if has_side else plain, document.built))
    with beside(model, document.built, folder / STATE if has_side else None):
        yield


class _Side:
    """Adds U(Vx) to what an adapted layer gives; keeps its factors where and as the layer computes."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor) -> None:
        self._up, self._down = up, down

    def __call__(self, module: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        if module.disable_adapters:
            return None
        x: torch.Tensor = inputs[0]
        if self._up.dtype is not x.dtype or self._up.device != x.device:
            self._up, self._down = self._up.to(x), self._down.to(x)
        return output + linear(linear(x, self._down), self._up)
