"""The side delta: what averaging the factors has lost so far, carried along as a second, frozen adapter (METHODS, 1.4).

The server keeps all of it (F, `full/…`). Devices get Ê (`side/…`): a truncated snapshot of F every few versions, and
what the rounds since then have recovered; what a snapshot drops stays in F and comes back with the next. Both are
factors of weight units, the scale alpha / rank included: a layer adds left · right to its base. It is never merged
into a base of low precision, where nothing of it would survive.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, TensorSpec, Vector
from fedit_protocol.methods.contract import Correction, RoundStart, State, Step
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix, lora_pairs
from fedit_protocol.task import AdapterSpec, TaskDocument

Factors = Mapping[str, tuple[Matrix, Matrix]]
"""Layer path → left (m, R) and right (R, n) as float64; a layer that is not there has nothing."""

FULL: Final = "full"
"""The name under which the server keeps F."""
SIDE: Final = "side"
"""The name under which devices get Ê."""

EVERY: Final = 4
"""T: a snapshot is taken at every version that this divides."""
MOST_FULL: Final = 256
"""The most columns of a layer that F keeps."""
MOST_SIDE: Final = 32
"""R_max: the most columns of a layer that a snapshot has."""
DROPPED: Final = 0.002
"""The share of the whole adapter, as a norm, that a snapshot may drop."""

_LEFT, _RIGHT = ".left", ".right"
_NOTHING: Final = 1e-7
"""Singular values below this share of the largest are rounding."""


def read(state: State, name: str) -> Factors:
    """Return the factors that a state holds under FULL or SIDE; other arrays of it are left alone."""
    paths = [key[len(name) + 1 : -len(_LEFT)] for key in state if key.startswith(f"{name}/") and key.endswith(_LEFT)]
    wide = {key: value.astype(np.float64) for key, value in state.items() if key.startswith(f"{name}/")}
    return {path: (wide[f"{name}/{path}{_LEFT}"], wide[f"{name}/{path}{_RIGHT}"]) for path in paths}


def as_state(name: str, factors: Factors) -> State:
    """Return the factors as the arrays of a state, float32, under FULL or SIDE."""
    found = {}
    for path, (left, right) in factors.items():
        found[f"{name}/{path}{_LEFT}"] = np.ascontiguousarray(left, dtype=np.float32)
        found[f"{name}/{path}{_RIGHT}"] = np.ascontiguousarray(right, dtype=np.float32)
    return found


def carried(start: RoundStart, step: Step, correction: Correction | None) -> tuple[State, State, dict[str, float]]:
    """Return the next version's side delta, as devices get it and whole, and what there is to say of it.

    Without a correction it stays as it was, but for the snapshot that every fourth version takes.
    """
    document = start.document
    spec, pairs = document.task.adapter, lora_pairs(document.layout)
    side, full, scale = read(start.public, SIDE), read(start.kept, FULL), spec.alpha / spec.rank
    if correction is not None:
        more = recovered(document, step.change, correction.factors)
        side, full = appended(side, more), appended(full, more)
    figures = {}
    if full and (start.version + 1) % EVERY == 0:
        full = compressed(full)
        adapter = (start.adapter + step.change).astype(np.float32)
        side, capped = snapshot(full, whole_norm(pairs, adapter, scale, full))
        figures["side_capped"] = float(capped)
    if side:
        figures["side_rank"] = float(max(left.shape[1] for left, _ in side.values()))
    return as_state(SIDE, side), as_state(FULL, full), figures


def recovered(document: TaskDocument, change: NDArray[np.float64], lost: Factors) -> Factors:
    """Return what a round adds to the side delta, in units of weights; `lost` is C, in units of B·A.

    Where the server goes η times as far in the factors, it is γ(η·C + η(1 − η)·b̄ā), so that the product has moved by η
    times its mean change; beside a rule with a memory it is γ·C, and the step is not exact.
    """
    spec, optimizer = document.task.adapter, document.task.optimizer
    scale, eta = spec.alpha / spec.rank, optimizer.learning_rate or 1.0
    if optimizer.remembers or optimizer.plain:
        return {path: (left, scale * right) for path, (left, right) in lost.items()}
    found = {}
    for pair in lora_pairs(document.layout):
        (a, b), (left, right) = pair.factors(change), lost[pair.path]
        found[pair.path] = (np.hstack([left, b]), scale * np.vstack([eta * right, eta * (1 - eta) * a]))
    return found


def appended(factors: Factors, more: Factors) -> Factors:
    """Return the sum of two, layer by layer, as longer factors."""
    found = dict(factors)
    for path, (left, right) in more.items():
        before = found.get(path)
        found[path] = (np.hstack([before[0], left]), np.vstack([before[1], right])) if before else (left, right)
    return found


def grown(factors: Factors, more: Factors) -> tuple[Factors, dict[str, float]]:
    """Return the sum of two in at most MOST_FULL columns a layer, and which share of its norm that drops for good."""
    whole = appended(factors, more)
    kept = compressed(whole)
    energy = _energy(whole)
    dropped = sqrt(max(0.0, 1 - _energy(kept) / energy)) if energy else 0.0
    return kept, {"side_dropped": dropped}


def _energy(factors: Factors) -> float:
    """The square of the norm of all layers, from small products only."""
    return float(sum(np.sum((left.T @ left) * (right @ right.T)) for left, right in factors.values()))


def compressed(factors: Factors, most: int = MOST_FULL) -> Factors:
    """Return the same sum in as few columns as it has rank, at most so many; balanced, U√S and √S·Vᵀ."""
    found = {}
    for path, (left, right) in factors.items():
        u, values, v = _decomposed(left, right)
        kept = min(most, int(np.count_nonzero(values > _NOTHING * values[0]))) if len(values) else 0
        if kept:
            root = np.sqrt(values[:kept])
            found[path] = u[:, :kept] * root, root[:, None] * v[:kept]
    return found


def snapshot(full: Factors, whole: float, most: int = MOST_SIDE) -> tuple[Factors, bool]:
    """Return Ê, F cut to the fewest columns R for all layers that drop at most DROPPED of `whole`, a norm.

    The second value says whether R would have had to be more than `most`. `full` is compressed: its factors are
    balanced, so that a column's share of the energy is the square of its norms' product.
    """
    energy = [_energies(left, right) for left, right in full.values()]
    longest = max((len(each) for each in energy), default=0)
    left_over = [sum(float(each[count:].sum()) for each in energy) for count in range(longest + 1)]
    wanted = next(count for count, dropped in enumerate(left_over) if dropped <= (DROPPED * whole) ** 2)
    columns = min(wanted, most)
    cut = {path: (left[:, :columns], right[:columns]) for path, (left, right) in full.items() if columns}
    return cut, wanted > most


def whole_norm(pairs: Sequence[LoraPair], adapter: Vector, scale: float, full: Factors) -> float:
    """Return ‖s·BA + F‖ over all layers, from small products only."""
    plain = {pair.path: (scale * b, a) for pair in pairs for a, b in [pair.factors(adapter)]}
    return sqrt(max(_energy(appended(plain, full)), 0.0))


def joined(layout: AdapterLayout, spec: AdapterSpec, adapter: Vector, public: State) -> tuple[AdapterLayout, Vector]:
    """Return adapter and side delta as one adapter of rank r + R whose scale is 1: A over right, s·B beside left.

    Its tensors are called as before, so that plain PEFT loads it. Without a side delta R is 0, and the scale is in B.
    Raises ValueError if the side delta is not of this layout's layers.
    """
    side, scale = read(public, SIDE), spec.alpha / spec.rank
    columns = max((left.shape[1] for left, _ in side.values()), default=0)
    tensors, values = [], {}
    for pair in lora_pairs(layout):
        a, b = pair.factors(adapter)
        left, right = checked(pair, side)
        missing = columns - left.shape[1]
        down = np.vstack([a, right, np.zeros((missing, pair.n))])
        up = np.hstack([scale * b, left, np.zeros((pair.m, missing))])
        for name, matrix in ((pair.a_name, down), (pair.b_name, up)):
            tensors.append(TensorSpec(name=name, shape=matrix.shape))
            values[name] = matrix.astype(np.float32)
    wide = AdapterLayout(tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)))
    return wide, wide.flatten(values)


def checked(pair: LoraPair, side: Factors) -> tuple[Matrix, Matrix]:
    """Return a layer's left (m, R) and right (R, n), empty if it has none; raises ValueError for other shapes."""
    left, right = side.get(pair.path, (np.zeros((pair.m, 0)), np.zeros((0, pair.n))))
    if left.shape != (pair.m, len(right)) or right.shape != (left.shape[1], pair.n):
        raise ValueError(f"the side delta of {pair.path} does not fit the layer")
    return left, right


def _decomposed(left: Matrix, right: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Return the thin SVD of left · right: U (m, k), values (k,), Vᵀ (k, n)."""
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, values, v = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return q_left @ u, values, v @ q_right.T


def _energies(left: Matrix, right: Matrix) -> Matrix:
    """Return each column's energy, (R,), of factors whose columns are orthogonal."""
    energies: Matrix = np.square(left).sum(axis=0) * np.square(right).sum(axis=1)
    return energies
