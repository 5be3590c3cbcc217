"""A base model as files, without torch: the shapes are real, the numbers are zeros."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fedit_protocol.ids import FederationId, TaskId
from fedit_protocol.signing import SigningKey
from fedit_protocol.task import BaseModelSpec, Task
from fedit_protocol.task_record import TaskChange, sign_change

HIDDEN = 8
LINEAR = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (4, HIDDEN), "mlp.up_proj": (16, HIDDEN)}


def make_base(
    folder: Path, *, layers: int = 1, linear: Mapping[str, tuple[int, int]] = LINEAR, **config: object
) -> Path:
    """Write a base model, of a few hundred numbers unless other layers are given; `config` changes its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "model.embed_tokens.weight": np.zeros((32, HIDDEN), np.float32),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for layer in range(layers):
        for name, shape in linear.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = np.zeros(shape, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stated = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
    }
    (folder / "config.json").write_text(json.dumps(stated | config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def signed(change: TaskChange) -> bytes:
    """Sign a line of a task's record where no server has a key."""
    return sign_change(SigningKey(bytes(32)), FederationId("0" * 32), change)


def small_task(base: Path, members: int = 3, **sections: dict[str, object]) -> Task:
    """Return a task for a cohort of `members` on that base: 1-bit rounding error at most, clip far away."""
    values: dict[str, object] = {
        "id": TaskId("notes"),
        "title": "Notes",
        "base": BaseModelSpec.model_validate({"model": str(base)}).model_dump(),
        "adapter": {"rank": 2, "target_modules": ["q_proj", "v_proj"], **sections.get("adapter", {})},
        "encoding": {"value_range": 1.0, "clip_norm": 100.0, **sections.get("encoding", {})},
        "round": {"cohort_min": members, "cohort_size": members, "rounds": 2, **sections.get("round", {})},
        **sections.get("top", {}),
    }
    return Task.model_validate(values)
