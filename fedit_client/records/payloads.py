"""What one upload says, in readable form: the very integers or floats that a mask or a seal covers, named by tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import CANARY_UNIT, FRACTION_UNIT, LOSS_UNIT, ClientReport
from fedit_protocol.round_plan import sealed_spec, sent_layout, sum_specs
from fedit_protocol.sealed.updates import clip_update, sealed_length
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import encode_update, read_tail, signed
from fedit_protocol.secagg.ring import WEIGHT, coordinate_count, levels, payload_length
from fedit_protocol.task import Mode, TaskDocument

Values = NDArray[np.float32] | NDArray[np.int16] | NDArray[np.int32]

_CORRECTION: Final = "correction"
_SKETCH: Final = "sketch"
_COUNT: Final = "canary_count "
_ROWS: Final = "domain_rows "
_CHOSEN: Final = "the coordinates that all devices of the round send"


@dataclass(frozen=True)
class TensorFacts:
    """One tensor of an upload in figures; of integers in masked rounds, of floats in trusted ones."""

    name: str
    shape: tuple[int, ...]
    norm: float
    """The L2 norm of the values as they are sent."""
    smallest: float
    largest: float
    nonzeros: int


@dataclass(frozen=True)
class Payload:
    """One upload before it is hidden. `tensors` hold what is sent; an integer times `unit`/weight is a coordinate."""

    mode: Mode
    tensors: Mapping[str, Values] = field(repr=False)
    figures: Mapping[str, int]
    """The weight and the metrics, as the integers that travel."""
    unit: float
    """What one step of an integer stands for, before the weight; 1 for floats."""
    size: int
    """Bytes on the wire, the same for every device of the task."""

    @property
    def weight(self) -> int:
        """How many units of weight this device counts for."""
        return self.figures[WEIGHT]

    def facts(self) -> tuple[TensorFacts, ...]:
        """Return each tensor in figures."""
        return tuple(_facts(name, values) for name, values in self.tensors.items())

    def report(self) -> dict[str, float | int | None]:
        """Return the figures behind the tensors in their own units; empty where the task sends none."""
        if "examples" not in self.figures:
            return {}
        sent, held = self.figures, self.figures["held_out_weight"]
        return {
            "examples": sent["examples"],
            "train_loss": sent["train_loss"] / (LOSS_UNIT * self.weight),
            "held_out_loss": sent["held_out_loss"] / (LOSS_UNIT * held) if held else None,
            "clipped_fraction": sent["clipped_fraction"] / (FRACTION_UNIT * self.weight),
            **self.canary(),
            **self.domains(),
        }

    def canary(self) -> dict[str, float]:
        """Return the canary loss that goes along, by class; empty where none does."""
        counts = {name.removeprefix(_COUNT): count for name, count in self.figures.items() if name.startswith(_COUNT)}
        return {f"canary_loss {name}": self.figures[f"canary_loss {name}"] / CANARY_UNIT
                for name, count in counts.items() if count}  # fmt: skip

    def domains(self) -> dict[str, float]:
        """Return the loss of each domain that goes along, in nats per token; empty where none does."""
        rows = {name.removeprefix(_ROWS): count for name, count in self.figures.items() if name.startswith(_ROWS)}
        return {f"domain_loss {name}": self.figures[f"domain_loss {name}"] / (LOSS_UNIT * count)
                for name, count in rows.items() if count}  # fmt: skip

    def as_data(self) -> dict[str, Any]:
        """Return the payload for programs, each tensor in figures; the values themselves are in `tensors`."""
        return {
            "mode": str(self.mode),
            "bytes": self.size,
            "weight": self.weight,
            "figures": dict(self.figures),
            "report": self.report(),
            "unit": self.unit,
            "tensors": [facts_data(one) for one in self.facts()],
        }


def decode_words(words: Words, ring: RingSpec, layout: AdapterLayout) -> Payload:
    """Return what plain ring words say, shape (word_count,); the arrays are copies."""
    coordinates = signed(words[: coordinate_count(ring)], ring)
    if ring.size == layout.size:
        tensors: dict[str, Values] = {
            tensor.name: coordinates[span].reshape(tensor.shape).copy() for tensor, span in layout.spans()
        }
    else:
        # A second sum has no figures; a first one that is shorter than its tensors is sparse.
        tensors = {_CHOSEN if ring.metrics else _CORRECTION: coordinates[: ring.size].copy()}
    if ring.sketch_size:
        tensors[_SKETCH] = coordinates[ring.size :].copy()
    unit = ring.value_range / levels(ring)
    return Payload(Mode.MASKED, tensors, read_tail(words, ring), unit, payload_length(ring))


def decode_sealed(
    update: Vector, weight: int, report: ClientReport, document: TaskDocument, version: int = 0
) -> Payload:
    """Return what a sealed update says in a round from this version: in trusted mode the server reads exactly this."""
    spec = sealed_spec(document, bytes(32), version)
    clipped, figures = clip_update(update, weight, report, spec)
    tensors: dict[str, Values] = dict(sent_layout(document, version).unflatten(clipped))
    return Payload(Mode.TRUSTED, tensors, {WEIGHT: weight, **figures}, 1.0, sealed_length(spec))


def example_payload(document: TaskDocument, seed: int = 0) -> Payload:
    """Return an invented upload of a task: of its very form and size, with made-up numbers of a likely length.

    For consent dialogs, before anything was trained; `run --dry-run` makes a real one. The same seed gives the same.
    """
    task, size = document.task, sent_layout(document).size
    generator = np.random.default_rng(seed)
    update = (generator.standard_normal(size) * 0.1 * task.value_range if task.round.mode is Mode.MASKED
              else generator.standard_normal(size) * 1e-3).astype(np.float32)  # fmt: skip
    report = ClientReport(examples=1000, train_loss=1.5, held_out_loss=1.6)
    if task.round.mode is Mode.TRUSTED:
        return decode_sealed(update, 1, report, document)
    ring = sum_specs(document)[0].ring
    message = np.concatenate([update, np.zeros(ring.sketch_size, dtype=np.float32)])
    plain_ring = ring.model_copy(update={"noise": None})
    return decode_words(encode_update(message, 1, report, plain_ring, bytes(32)), plain_ring, sent_layout(document))


def payload_lines(payload: Payload, most_tensors: int = 6) -> list[str]:
    """Return a payload in words: its figures, then its tensors, the first few of many."""
    facts, report = payload.facts(), payload.report()
    what = "integers" if payload.mode is Mode.MASKED else "numbers"
    lines = [f"{payload.size:,} bytes: {sum(_count(one) for one in facts):,} {what} in {len(facts)} tensors"]
    lines += [f"  weight {payload.weight}" + _report_words(report)]
    for one in facts[:most_tensors]:
        shape = "×".join(map(str, one.shape))
        lines.append(
            f"  {one.name} {shape}: {one.smallest:g} to {one.largest:g}, norm {one.norm:.4g},"
            f" {one.nonzeros:,} of {_count(one):,} not zero"
        )
    if len(facts) > most_tensors:
        lines.append(f"  … and {len(facts) - most_tensors} more tensors")
    return lines


def facts_data(facts: TensorFacts) -> dict[str, Any]:
    """Return one tensor's figures as plain values."""
    return {"name": facts.name, "shape": list(facts.shape), "norm": facts.norm, "min": facts.smallest,
            "max": facts.largest, "nonzeros": facts.nonzeros}  # fmt: skip


def _report_words(report: Mapping[str, float | int | None]) -> str:
    if not report:
        return ", and no figures beside it"
    held = report["held_out_loss"]
    told = f", {report['examples']:,} examples, training loss {report['train_loss']:.3f}"
    other = ("canary_loss", "domain_loss")
    canary = "".join(f", {name} {loss:.4f}" for name, loss in report.items() if name.startswith(other))
    return told + (f", held-out loss {held:.3f}" if held is not None else "") + canary


def _facts(name: str, values: Values) -> TensorFacts:
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return TensorFacts(
        name, values.shape, norm, float(values.min()), float(values.max()), int(np.count_nonzero(values))
    )


def _count(facts: TensorFacts) -> int:
    return int(np.prod(facts.shape))
