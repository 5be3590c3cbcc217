"""What a task's rounds are made of, masked sums or sealed updates: both sides derive it from the published document."""

from typing import Final

import numpy as np

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.compression import Compression
from fedit_protocol.messages import SealedSpec, SecondRule, SumSpec
from fedit_protocol.methods import SketchingMethod, State, TwoSumMethod, method_of
from fedit_protocol.methods.audit import audited_ring, is_audited
from fedit_protocol.methods.contract import NO_STATE
from fedit_protocol.methods.sketch_width import COLUMNS, widths
from fedit_protocol.metrics import metric_specs
from fedit_protocol.secagg.ring import cohort_rules, ring_spec
from fedit_protocol.statistics import statistic_specs
from fedit_protocol.task import Mode, Selection, TaskDocument
from fedit_protocol.task_tables import MethodName
from fedit_protocol.version import CLASSES_VERSION, FIRST_VERSION, PROTOCOL_VERSION

NEW_SETTINGS: Final = (
    ("adapter", "start"),
    ("training", "evaluate_every"),
    ("training", "proximal"),
    ("training", "max_steps"),
    ("optimizer", "name"),
    ("selection", "domains"),
    ("encoding", "packed"),
    ("method", "audit_every"),
    ("method", "diversity"),
)
"""Settings that came with 2.2; a document holds one where it is not at its default."""

OLD_SELECTIONS: Final = frozenset({Selection.UNIFORM, Selection.FIRST_COME})

__all__ = ["allowed_sums", "cohort_rules", "sealed_spec", "second_rule", "sent_layout", "sum_specs", "version_of"]


def version_of(document: TaskDocument) -> tuple[int, int]:
    """Return the protocol version that rounds of this task need (SPEC, section 10).

    Base classes came with 2.1; statistics, domains, compression, some settings
    (`NEW_SETTINGS`) and the methods but fedavg (fedit_rs as it is now) with 2.2.
    """
    task = document.task
    stated = task.model_dump(include={section for section, _ in NEW_SETTINGS})
    later = (
        task.fairness,
        task.compression,
        any(key in stated.get(section, {}) for section, key in NEW_SETTINGS),
        {"optimizer", "selection"} & set(stated),
        task.round.selection not in OLD_SELECTIONS,
        task.method.name is not MethodName.FEDAVG,
        statistic_specs(task),
    )
    if any(later):
        return PROTOCOL_VERSION
    return CLASSES_VERSION if task.base.classes else FIRST_VERSION


def sum_specs(document: TaskDocument, version: int = 0, public: State = NO_STATE) -> tuple[SumSpec, ...]:
    """Return the masked sums of a round that starts from a version and its public state; none in mode trusted.

    Raises ConfigError C021 for too wide a ring.
    """
    if document.task.round.mode is Mode.TRUSTED:
        return ()
    method = method_of(document)
    sent = sent_layout(document, version)
    ring = ring_spec(document.task, sent.size)
    if is_audited(document, version):
        ring = audited_ring(document, ring)
    if (compression := Compression.of(document.task, sent)) is not None:
        ring = compression.ring(ring)
    if isinstance(method, SketchingMethod):
        ring = method.ring(document, ring, public)
    if not isinstance(method, TwoSumMethod):
        return (SumSpec(index=1, purpose="update", ring=ring),)
    first, second = method.rings(document, ring, public)
    return (SumSpec(index=1, purpose="update", ring=first), SumSpec(index=2, purpose="correction", ring=second))


def allowed_sums(document: TaskDocument, version: int) -> tuple[tuple[SumSpec, ...], ...]:
    """Return the masked sums that a round from this version may have, for who does not know its public state yet."""
    if not document.task.method.sketch_adapts:
        return (sum_specs(document, version),)
    each = (np.array([columns], np.float32) for columns in widths(document))
    return tuple(sum_specs(document, version, {COLUMNS: width}) for width in each)


def sent_layout(document: TaskDocument, version: int = 0) -> AdapterLayout:
    """Return the tensors whose change a device sends in a round from this version."""
    names = frozenset(method_of(document).sent(document, version))
    return AdapterLayout(tensors=tuple(tensor for tensor in document.layout.tensors if tensor.name in names))


def sealed_spec(document: TaskDocument, key: bytes, version: int = 0) -> SealedSpec:
    """Return what the devices of a trusted round seal to the round's key HK (32 bytes, X25519)."""
    encoding = document.task.encoding
    return SealedSpec(
        key=key,
        size=sent_layout(document, version).size,
        clip_norm=encoding.clip_norm,
        max_weight=encoding.max_weight,
        metrics=metric_specs(encoding.max_weight) + statistic_specs(document.task),
    )


def second_rule(document: TaskDocument) -> SecondRule:
    """Return when a second sum of this task may be opened."""
    method = method_of(document)
    return SecondRule.SUBSET if isinstance(method, TwoSumMethod) else SecondRule.NONE
