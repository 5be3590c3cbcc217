"""Small cores between frozen bases: ΔW = γ·B·R·A with orthonormal B (m, r) and A (r, n) that everybody draws alike.

Only R travels and is summed, and ΔW is linear in it, so the mean of the cores is the core of the mean: aggregation is
exact. The adapter that people load has lora_A = A and lora_B = B·R.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix, lora_pairs
from fedit_protocol.task import TaskDocument


@dataclass(frozen=True)
class CoreLayer:
    """One adapted layer: its bases, and where its core lies in the state."""

    pair: LoraPair
    down: Matrix
    """A, (r, n) float64 with orthonormal rows."""
    up: Matrix
    """B, (m, r) float64 with orthonormal columns."""
    heads: int
    span: slice

    def blocks(self, state: NDArray[np.floating]) -> Matrix:
        """Return the layer's cores out of a state vector, (heads, r / heads, r / heads) float64."""
        inner = self.pair.rank // self.heads
        return state[self.span].astype(np.float64).reshape(self.heads, inner, inner)

    def core(self, state: NDArray[np.floating]) -> Matrix:
        """Return R, (r, r) float64: the heads' cores along its diagonal, zero elsewhere."""
        inner, whole = self.pair.rank // self.heads, np.zeros((self.pair.rank, self.pair.rank))
        for head, block in enumerate(self.blocks(state)):
            place = slice(head * inner, (head + 1) * inner)
            whole[place, place] = block
        return whole

    def blocks_of(self, lora_b: NDArray[np.floating]) -> Matrix:
        """Return the cores that a lora_B (m, r) was built from: BᵀB = 1, so Bᵀ·lora_B is R."""
        inner, whole = self.pair.rank // self.heads, self.up.T @ lora_b.astype(np.float64)
        return np.stack([whole[at : at + inner, at : at + inner] for at in range(0, self.pair.rank, inner)])


def core_layers(document: TaskDocument) -> tuple[CoreLayer, ...]:
    """Return the layers of a task whose state is cores, in layout order; bases come from the task's public seed."""
    spec, layers = document.task.adapter, []
    for place, (pair, (core, span)) in enumerate(zip(lora_pairs(document.built), document.layout.spans(), strict=True)):
        heads = core.shape[0] if len(core.shape) == 3 else 1
        down = _orthonormal([spec.seed, place, 0], pair.n, pair.rank).T
        up = _orthonormal([spec.seed, place, 1], pair.m, pair.rank)
        layers.append(CoreLayer(pair, down, up, heads, span))
    return tuple(layers)


def built_from_cores(document: TaskDocument, state: Vector) -> Vector:
    """Return the LoRA adapter of a state of cores, float32 (document.built.size,)."""
    found = np.zeros(document.built.size, dtype=np.float32)
    for layer in core_layers(document):
        found[layer.pair.a_span] = layer.down.reshape(-1)
        found[layer.pair.b_span] = (layer.up @ layer.core(state)).reshape(-1)
    return found


def _orthonormal(seed: list[int], rows: int, columns: int) -> Matrix:
    """Return (rows, columns) with orthonormal columns: QR of normal numbers from PCG64, R's diagonal positive.

    The sign makes the factorisation unique, so that machines differ by rounding alone.
    """
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal((rows, columns))
    q, r = np.linalg.qr(drawn)
    found: Matrix = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return found
