"""What a device gives to a round's first sum: the message of its method, made smaller, its weight and its figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedit_client.records.own_part import SentPart
from fedit_client.rounds.statistics import report_of
from fedit_client.training import LocalResult
from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.advance import message_of
from fedit_protocol.compression import Compression
from fedit_protocol.diversity import own_square
from fedit_protocol.fairness import START_LOSS, OwnFigures, client_weight, fair_statistics, is_cut
from fedit_protocol.methods import RoundStart
from fedit_protocol.methods.nested import limited
from fedit_protocol.metrics import ClientReport, OwnDomain
from fedit_protocol.rank_blocks import block_weights
from fedit_protocol.round_plan import sent_layout
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName

_ROWS, _LOSS = "rows ", "loss "
"""How training names what it found of a domain, before the domain's own name."""


@dataclass(frozen=True)
class Contribution:
    """One device's part; `left` is what compression has put off, by tensor, for its next round."""

    message: Vector = field(repr=False)
    weight: int = field(repr=False)
    report: ClientReport = field(repr=False)
    left: Mapping[str, Vector] = field(default_factory=dict, repr=False)
    cut: bool = field(default=False, repr=False)
    """Whether the task's rule wanted a larger weight than the task has (`fairness.is_cut`)."""


def contribution(
    local: LocalResult,
    start: RoundStart,
    left: Mapping[str, Vector] | None = None,
    weigh: Callable[[int], int] = lambda weight: weight,
    open_rank: int | None = None,
) -> Contribution:
    """Return what a trained update comes to in a round from `start`; `left` is what earlier rounds have put off.

    `weigh` says what the device's weight becomes in this very round. Slices from `open_rank` on are left out: too few
    devices of the cohort have them (C21).
    """
    document = start.document
    update = local.update if open_rank is None else limited(document.layout, local.update, open_rank)
    message = message_of(start, update, local.examples, local.steps)
    sent = sent_layout(document, start.version)
    own = own_figures(local, document, message[: sent.size])  # behind it are sketches, if any
    compression = Compression.of(document.task, sent)
    statistics, later = fair_statistics(document.task, own), dict[str, Vector]()
    if compression is not None:
        smaller = compression.compress(message, start.public, left or {})
        message, later = smaller.message, smaller.left
        statistics |= smaller.figures
    weight = weigh(client_weight(document.task, own, start.public))
    statistics |= own_square(document.task, own.update_norm, weight)
    if open_rank is not None:
        statistics |= block_weights(document.task.adapter.ranks, open_rank, weight)
    report = report_of(local, document.task, weight)
    report = replace(report, statistics={**report.statistics, **statistics}, domains=_own_domains(local, document))
    return Contribution(message, weight, report, later, is_cut(document.task, own, start.public))


def sent_part(message: Vector, weight: int, start: RoundStart) -> SentPart | None:
    """Return what a device has in the mean of the next version, if its method takes that out again (FedALT)."""
    document = start.document
    if document.task.method.name is not MethodName.FEDALT:
        return None
    first = first_adapter(document.layout, document.task.adapter.seed)
    return SentPart(document.layout.unflatten(first + message), weight, start.version + 1)


def own_figures(local: LocalResult, document: TaskDocument, message: Vector) -> OwnFigures:
    """Return what the weight of a device follows from."""
    found, clip = local.statistics, document.task.encoding.clip_norm
    rows = {name: round(found[_ROWS + name]) for name in _domains(document) if _ROWS + name in found}
    norm = min(float(np.linalg.norm(message.astype(np.float64))), clip)
    return OwnFigures(local.examples, found.get(START_LOSS), rows, norm)


def _own_domains(local: LocalResult, document: TaskDocument) -> dict[str, OwnDomain]:
    found = local.statistics
    return {
        name: OwnDomain(round(found[_ROWS + name]), found[_LOSS + name])
        for name in _domains(document)
        if _ROWS + name in found
    }


def _domains(document: TaskDocument) -> tuple[str, ...]:
    return document.task.fairness.domains if document.task.fairness else ()
