"""FedIT with its residual by two sketches in one sum, for devices that cannot wait for a second one.

What averaging the factors loses, C = Σp b_k a_k − b̄ā, is sketched from both sides: C·Ω says its range Q, and
Ψ·C = (ΨQ)P is solved for P by least squares (a one-pass range finder: Tropp, Yurtsever, Udell, Cevher 2017, Algorithm
4). Both sketches are differences of sums over the devices; the numbers of the taller one, Ψ·C, lie along the shorter
side of a layer. Nothing has to come back, so nobody can drop out in between; the error is about half as large again as
with a second sum.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ConfigError
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods import side_delta
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import Correction, RoundStart, State, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix, lora_pairs
from fedit_protocol.methods.sketch_width import columns_of, next_columns
from fedit_protocol.methods.sketches import SKETCH_UNITS, clipped, flat, mean_of, moved, replace_ring, signs
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

_TALL: Final = 2
"""Rows of Ψ per column of Ω: with as many as columns the least squares would have nothing to average."""


class FedItRs1(FedAvg):
    """FedAvg of the factors, and a low-rank correction of their product from the same sum (METHODS, section 1.4)."""

    def ring(self, document: TaskDocument, ring: RingSpec, public: State) -> RingSpec:
        """Return the ring with both sketches behind the factors; raises ConfigError C023."""
        size = sum(layer.size for layer in _layers(document, public))
        return replace_ring(ring, sketch_size=size, sketch_range=SKETCH_UNITS * ring.value_range**2)

    def client_message(self, update: Vector, start: RoundStart) -> Vector:
        """Return what a client masks: its update, clipped to the task's norm, then both sketches of every layer."""
        own = clipped(update, start.document.task.encoding.clip_norm)
        parts: list[Matrix] = []
        for layer in _layers(start.document, start.public):
            left, right = layer.factors(own)
            omega, psi = layer.probes(start.context0)
            parts.append(left @ (right @ omega) / layer.wide_unit)
            parts.append((psi @ left) @ right / layer.tall_unit)
        return np.concatenate([own, flat(parts)])

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return FedAvg's step, with the recovered residual in the side delta, unless the held-out rows refuse it."""
        step = super().server_update(start, first)
        if not isinstance(first, Aggregate):
            raise RuntimeError("a method with a sketch has one cohort")
        found = _recovered(start, first)
        better = found if found.error_after < found.error_before else None
        public, kept, more = side_delta.carried(start, step, better)
        left = found.error_after if better else found.error_before
        public = {**public, **next_columns(start.document, start.public, left)}
        return Step(step.change, public, kept, figures={"audit_error": found.error_before, "left_error": left} | more)


def _recovered(start: RoundStart, first: Aggregate) -> Correction:
    """Solve every layer for its residual; the held-out rows of Ψ say how much of it there was, and how much is left."""
    mean, place = mean_of(first), 0
    factors, before, after, update = {}, 0.0, 0.0, 0.0
    for layer in _layers(start.document, start.public):
        sketch = first.sketch[place : place + layer.size] / first.weight
        place += layer.size
        left, right = layer.factors(mean)
        omega, psi = layer.probes(start.context0)
        wide = sketch[: layer.wide].reshape(layer.long, -1) * layer.wide_unit - left @ (right @ omega)
        tall = sketch[layer.wide :].reshape(-1, layer.short) * layer.tall_unit - (psi @ left) @ right
        held = len(tall) - layer.held_out
        q = np.linalg.qr(wide)[0]
        p = np.linalg.lstsq(psi[:held] @ q, tall[:held], rcond=None)[0]
        before += float(np.square(tall[held:]).sum()) / layer.held_out
        after += float(np.square(tall[held:] - (psi[held:] @ q) @ p).sum()) / layer.held_out
        update += moved(layer.pair.factors(start.adapter), layer.pair.factors(mean))
        factors[layer.pair.path] = (p.T, q.T) if layer.turned else (q, p)
    scale = 1 / update if update else 0.0
    return Correction(factors, sqrt(before * scale), sqrt(after * scale))


@dataclass(frozen=True)
class _Layer:
    """One layer, turned so that its longer side comes first: C, or its transpose, is long × short."""

    pair: LoraPair
    columns: int
    """s, the columns of Ω."""
    held_out: int
    """h, rows of Ψ that only estimate."""

    @property
    def turned(self) -> bool:
        return self.pair.m < self.pair.n

    @property
    def long(self) -> int:
        return max(self.pair.m, self.pair.n)

    @property
    def short(self) -> int:
        return min(self.pair.m, self.pair.n)

    @property
    def wide(self) -> int:
        """How many numbers C·Ω has."""
        return self.long * self.columns

    @property
    def size(self) -> int:
        """How many numbers both sketches have."""
        return self.wide + (_TALL * self.columns + self.held_out) * self.short

    @property
    def wide_unit(self) -> float:
        return sqrt(self.short * self.pair.rank)

    @property
    def tall_unit(self) -> float:
        return sqrt(self.long * self.pair.rank)

    def factors(self, flat_vector: Vector) -> tuple[Matrix, Matrix]:
        """Return left (long, r) and right (r, short), whose product is b·a or its transpose."""
        a, b = self.pair.factors(flat_vector)
        return (a.T, b.T) if self.turned else (b, a)

    def probes(self, context0: bytes) -> tuple[Matrix, Matrix]:
        """Return Ω (short, s) and Ψ (2s + h, long), of ±1."""
        omega = signs("probes", context0, self.pair.path, (self.short, self.columns))
        psi = signs("rows", context0, self.pair.path, (_TALL * self.columns + self.held_out, self.long))
        return omega, psi


def _layers(document: TaskDocument, public: State) -> tuple[_Layer, ...]:
    """Return the layers of a task; raises ConfigError C023 for a sketch that is wider than one of them."""
    method, columns = document.task.method, columns_of(document, public)
    layers = tuple(_Layer(pair, columns, method.sketch_probes) for pair in lora_pairs(document.layout))
    if narrow := [layer.pair.path for layer in layers if layer.short < columns]:
        raise ConfigError(f"method.sketch_rank = {columns} exceeds the shorter side of {narrow[0]}", code="C023")
    return layers
