"""The adapter's tensors ↔ one flat float32 vector, in an order that every side computes alike."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod, sqrt
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedit_protocol.encoding import digest_of, encode
from fedit_protocol.ids import Digest

Vector = NDArray[np.float32]
"""A flat float32 array of shape (d,)."""

Tensors = Mapping[str, NDArray[np.float32]]
"""Tensor name → float32 array of the shape that the layout states."""

_PEFT_PREFIX = "base_model.model."


class TensorSpec(BaseModel):
    """Name and shape of one adapter tensor, as PEFT saves it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=256)]
    shape: tuple[Annotated[int, Field(gt=0)], ...]

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return prod(self.shape)


class AdapterLayout(BaseModel):
    """The tensors of one LoRA adapter in their order on the wire: sorted by module path, A before B."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensors: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=4096)]

    @model_validator(mode="after")
    def _sorted_and_unique(self) -> "AdapterLayout":
        names = [tensor.name for tensor in self.tensors]
        if names != sorted(set(names)):
            raise ValueError("tensor names must be sorted and distinct")
        return self

    @classmethod
    def of_lora(
        cls, linear_shapes: Mapping[str, tuple[int, int]], target_modules: Sequence[str], rank: int
    ) -> "AdapterLayout":
        """Return the layout that PEFT gives a LoRA adapter of this rank.

        `linear_shapes` maps each module path of the base (`model.layers.0.self_attn.q_proj`) to (out, in).
        A module is adapted if its path equals a target or ends in `.` + target; a target that fits none: ValueError.
        """
        unused = set(target_modules)
        tensors: list[TensorSpec] = []
        for path, (out_features, in_features) in linear_shapes.items():
            hits = {target for target in target_modules if path == target or path.endswith(f".{target}")}
            if not hits:
                continue
            unused -= hits
            tensors.append(TensorSpec(name=f"{_PEFT_PREFIX}{path}.lora_A.weight", shape=(rank, in_features)))
            tensors.append(TensorSpec(name=f"{_PEFT_PREFIX}{path}.lora_B.weight", shape=(out_features, rank)))
        if unused:
            raise ValueError(f"no linear layer of the base is called {', '.join(sorted(unused))}")
        return cls(tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)))

    @property
    def size(self) -> int:
        """d, the length of the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def digest(self) -> Digest:
        """The SHA-256 of the layout's canonical bytes: the schema hash that a round is bound to."""
        return digest_of(encode(self))

    def at_rank(self, rank: int) -> "AdapterLayout":
        """Return the layout of the same LoRA pairs at another rank."""
        tensors = []
        for tensor in self.tensors:
            rows, columns = tensor.shape
            shape = (rank, columns) if tensor.name.endswith("lora_A.weight") else (rows, rank)
            tensors.append(TensorSpec(name=tensor.name, shape=shape))
        return AdapterLayout(tensors=tuple(tensors))

    def spans(self) -> Iterator[tuple[TensorSpec, slice]]:
        """Yield each tensor with its place in the flat vector."""
        start = 0
        for tensor in self.tensors:
            yield tensor, slice(start, start + tensor.size)
            start += tensor.size

    def flatten(self, tensors: Tensors) -> Vector:
        """Return the (d,) vector; raises ValueError on a missing, extra, misshapen or non-float32 tensor."""
        extra = tensors.keys() - {tensor.name for tensor in self.tensors}
        if extra:
            raise ValueError(f"unexpected tensor {min(extra)}")
        flat = np.empty(self.size, dtype=np.float32)
        for tensor, span in self.spans():
            if tensor.name not in tensors:
                raise ValueError(f"tensor {tensor.name} is missing")
            array = tensors[tensor.name]
            if array.shape != tensor.shape or array.dtype != np.float32:
                raise ValueError(f"tensor {tensor.name} is {array.dtype} {array.shape}, not float32 {tensor.shape}")
            flat[span] = array.reshape(-1)
        return flat

    def unflatten(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """Return the named tensors of a (d,) vector, as copies; raises ValueError if its length is not d."""
        if vector.shape != (self.size,):
            raise ValueError(f"a vector of shape {vector.shape} does not fill a layout of {self.size} coordinates")
        return {tensor.name: vector[span].reshape(tensor.shape).astype(np.float32) for tensor, span in self.spans()}


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


def vector_digest(vector: Vector) -> Digest:
    """Return the digest of a vector's bytes, (d,) float32 little-endian, without a copy of them."""
    return digest_of(np.ascontiguousarray(vector).data.cast("B"))
