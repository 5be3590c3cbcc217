"""A task document and a global adapter for the tiny Llama that tests train."""

import json
from pathlib import Path
from typing import Any

from fedit_client.training.tiny_llama import CHAT_TEMPLATE, make_tiny_llama

__all__ = ["CHAT_TEMPLATE", "make_tiny_llama", "tiny_document", "tiny_shapes", "write_adapter"]


def tiny_shapes(folder: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Return the linear layers of a model folder as path → (out, in), and how many numbers lie elsewhere."""
    from safetensors import safe_open

    linear: dict[str, tuple[int, int]] = {}
    elsewhere = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - this is no dict
                shape = file.get_slice(name).get_shape()
                if len(shape) == 2 and "embed" not in name:
                    linear[name.removesuffix(".weight")] = (shape[0], shape[1])
                else:
                    elsewhere += shape[0] * (shape[1] if len(shape) == 2 else 1)
    return linear, elsewhere


def tiny_document(folder: Path, **sections: Any) -> Any:
    """Return a TaskDocument for a model folder; keyword arguments are the task's tables, such as `training={...}`."""
    from fedit_client.base.model import digest_folder
    from fedit_protocol.adapter import AdapterLayout
    from fedit_protocol.state_layout import state_layout
    from fedit_protocol.task import Task, TaskDocument

    base = {"model": str(folder), "digest": digest_folder(folder), **sections.pop("base", {})}
    task = Task.model_validate({"id": "tiny", "title": "Tiny", "base": base, **sections})
    linear, elsewhere = tiny_shapes(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    lora = AdapterLayout.of_lora(linear, task.adapter.target_modules, task.adapter.rank)
    state = state_layout(task.method, lora)
    return TaskDocument(
        task=task,
        layout=state or lora,
        lora=lora if state else None,
        linear_parameters=sum(out * into for out, into in linear.values()),
        other_parameters=elsewhere,
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        intermediate_size=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        base_bytes=sum(path.stat().st_size for path in folder.iterdir()),
    )


def write_adapter(document: Any, path: Path, *, seed: int = 0, zero_b: bool = True) -> Path:
    """Write a global adapter for a document: A uniform as PEFT draws it, B zero (or small numbers)."""
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    tensors = {}
    for tensor in document.built.tensors:
        bound = 1 / np.sqrt(tensor.shape[1])
        values = random.uniform(-bound, bound, tensor.shape).astype(np.float32)
        tensors[tensor.name] = values * 0 if zero_b and "lora_B" in tensor.name else values
    save_file(tensors, path)
    return path
