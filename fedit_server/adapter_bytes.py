"""Adapters as bytes: the untrained version 0, and the safetensors form in which every version travels."""

from math import sqrt

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.errors import StorageError


def first_adapter(layout: AdapterLayout, seed: int) -> Vector:
    """Return version 0: A uniform in ±1/sqrt(in), B zero, so that it changes nothing; the same for everybody.

    The bound is PEFT's default: Kaiming uniform (He et al. 2015) with a = sqrt(5) gives sqrt(6 / (6·in)). A is drawn
    in layout order from PCG64 with the task's public seed.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    vector = np.zeros(layout.size, dtype=np.float32)
    for tensor, span in layout.spans():
        if tensor.name.endswith("lora_A.weight"):
            bound = 1.0 / sqrt(tensor.shape[1])
            vector[span] = generator.uniform(-bound, bound, tensor.size)
    return vector


def to_safetensors(layout: AdapterLayout, vector: Vector) -> bytes:
    """Return the bytes of `adapter_model.safetensors`; the same vector always gives the same bytes."""
    return save(layout.unflatten(vector), metadata={"format": "pt"})


def from_safetensors(layout: AdapterLayout, content: bytes) -> Vector:
    """Return the flat vector of a stored adapter; raises StorageError S006 if it does not fit the layout."""
    try:
        return layout.flatten(load(content))
    except (SafetensorError, ValueError) as error:
        raise StorageError(
            f"a stored adapter does not fit its task: {error}",
            code="S006",
            fix="restore the whole data folder from one backup",
        ) from error
