"""What a method has to do on both sides, and what it is given: public state, sums, and nothing of one device.

A device calls `client_message`, the server `server_update`; both know what a round starts from. What a method sends is
linear in the clients' messages, so that sums are enough (decision 0008).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.encoding import hash_parts
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.lora_pairs import Matrix
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

State = Mapping[str, NDArray[np.floating[Any]]]
"""Named float32 or float64 arrays: the memory of a method or an optimizer, written beside an adapter version."""

NO_STATE: Final[State] = {}
NO_CONTEXT: Final = hash_parts("no round")
"""Seeds the public randomness of a message that no round asked for: a dry run, an experiment."""


@dataclass(frozen=True)
class RoundStart:
    """What a round starts from. Turns of a method go by `version`: rounds that failed have moved nothing."""

    document: TaskDocument
    version: int
    adapter: Vector = field(repr=False)
    """(d,) float32: the adapter of that version."""
    context0: bytes = field(default=NO_CONTEXT, repr=False)
    """The round's context, 32 bytes: what its public randomness is drawn from."""
    public: State = field(default_factory=dict, repr=False)
    """What every device of the round has too."""
    kept: State = field(default_factory=dict, repr=False)
    """What stays on the server; empty on a device."""


@dataclass(frozen=True)
class Step:
    """What a round's sums say: where the adapter moves, before an optimizer has its say, and the next state, whole."""

    change: NDArray[np.float64] = field(repr=False)
    """(d,) float64: the mean change of each coordinate, 0 where nothing was sent."""
    public: State = field(default_factory=dict, repr=False)
    kept: State = field(default_factory=dict, repr=False)
    reset: bool = False
    """Whether the coordinates mean something else from here on: momenta of before are forgotten."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the sums say of the round, by name, for people."""


@dataclass(frozen=True)
class Correction:
    """The recovered residual of each layer as factors, and how much of it the hold-out probes say was recovered."""

    factors: dict[str, tuple[Matrix, Matrix]]
    """Layer path → Q (m, s) and P (s, n), in units of B·A before the scale alpha / rank."""
    error_before: float
    error_after: float
    """‖residual‖ over ‖update‖ without and with the correction, both estimated by the hold-out probes."""


class AggregationMethod(Protocol):
    """The two halves of a method: no I/O, no clock, no hidden state."""

    def trained(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return the names of the layout's tensors that devices train in a round from this version."""
        ...

    def sent(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return the tensors whose change is summed, in layout order; the ring has their sizes together."""
        ...

    def client_message(self, update: Vector, start: RoundStart) -> Vector:
        """Return what a client puts under the mask, float32: its (d,) update as far as it is sent."""
        ...

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the step that the sums say; raises ProtocolError if no weight came."""
        ...


@runtime_checkable
class TwoSumMethod(Protocol):
    """A method whose rounds have a second masked sum that depends on the first; `server_update` does without it too."""

    def rings(self, document: TaskDocument, ring: RingSpec, public: State) -> tuple[RingSpec, RingSpec]:
        """Return the rings of both sums, given the one of the adapter alone and what devices know besides."""
        ...

    def derive(self, first: Aggregate, start: RoundStart) -> tuple[bytes, bytes] | None:
        """Return the result and the public input of the second sum, or None if there is nothing to gain by it."""
        ...

    def second_message(self, update: Vector, start: RoundStart, result: bytes, derived: bytes) -> Vector:
        """Return what a client masks second; raises SecurityError for an input that no honest server derives (C18)."""
        ...

    def correction(self, first: Aggregate, second: Aggregate, start: RoundStart) -> Correction | None:
        """Return what the second sum adds to the new adapter, or None if it would not help."""
        ...


@runtime_checkable
class SketchingMethod(Protocol):
    """A method whose one sum holds further coordinates behind the update."""

    def ring(self, document: TaskDocument, ring: RingSpec, public: State) -> RingSpec:
        """Return the ring of its sum, given the one of the adapter alone and public state; raises ConfigError."""
        ...


def all_names(layout: AdapterLayout) -> tuple[str, ...]:
    """Return the names of all tensors, in layout order."""
    return tuple(tensor.name for tensor in layout.tensors)


def size_of(layout: AdapterLayout, names: Sequence[str]) -> int:
    """Return how many coordinates the named tensors have together."""
    wanted = frozenset(names)
    return sum(tensor.size for tensor in layout.tensors if tensor.name in wanted)


def spans_of(layout: AdapterLayout, names: Sequence[str]) -> tuple[slice, ...]:
    """Return where the named tensors lie in the flat vector, in layout order."""
    wanted = frozenset(names)
    return tuple(span for tensor, span in layout.spans() if tensor.name in wanted)


def gathered(layout: AdapterLayout, names: Sequence[str], vector: Vector) -> Vector:
    """Return the coordinates of the named tensors out of a (d,) vector, one behind the other; no copy if it is all."""
    if size_of(layout, names) == len(vector):
        return vector
    return np.concatenate([vector[span] for span in spans_of(layout, names)])


def scattered(layout: AdapterLayout, names: Sequence[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a (d,) vector with these coordinates in the named tensors' places and 0 elsewhere."""
    if len(values) == layout.size:
        return values
    whole, start = np.zeros(layout.size), 0
    for span in spans_of(layout, names):
        whole[span] = values[start : start + span.stop - span.start]
        start += span.stop - span.start
    return whole
