"""What a task's rounds are made of, masked sums or sealed updates: both sides derive it from the published document."""

from fedit_protocol.messages import SealedSpec, SecondRule, SumSpec
from fedit_protocol.methods import METHODS, TwoSumMethod
from fedit_protocol.metrics import metric_specs
from fedit_protocol.secagg.ring import cohort_rules, ring_spec
from fedit_protocol.task import Mode, TaskDocument
from fedit_protocol.version import FIRST_VERSION, PROTOCOL_VERSION

__all__ = ["cohort_rules", "sealed_spec", "second_rule", "sum_specs", "version_of"]


def version_of(document: TaskDocument) -> tuple[int, int]:
    """Return the protocol version that rounds of this task need: base classes came with 2.1 (SPEC, section 10)."""
    return PROTOCOL_VERSION if document.task.base.classes else FIRST_VERSION


def sum_specs(document: TaskDocument) -> tuple[SumSpec, ...]:
    """Return the masked sums of a round in order, none in mode trusted; raises ConfigError C021 for too wide a ring."""
    if document.task.round.mode is Mode.TRUSTED:
        return ()
    ring = ring_spec(document.task, document.layout.size)
    method = METHODS[document.task.method.name]
    if not isinstance(method, TwoSumMethod):
        return (SumSpec(index=1, purpose="update", ring=ring),)
    first, second = method.rings(document, ring)
    return (SumSpec(index=1, purpose="update", ring=first), SumSpec(index=2, purpose="correction", ring=second))


def sealed_spec(document: TaskDocument, key: bytes) -> SealedSpec:
    """Return what the devices of a trusted round seal to the round's key HK (32 bytes, X25519)."""
    encoding = document.task.encoding
    return SealedSpec(
        key=key,
        size=document.layout.size,
        clip_norm=encoding.clip_norm,
        max_weight=encoding.max_weight,
        metrics=metric_specs(encoding.max_weight),
    )


def second_rule(document: TaskDocument) -> SecondRule:
    """Return when a second sum of this task may be opened."""
    method = METHODS[document.task.method.name]
    return SecondRule.SUBSET if isinstance(method, TwoSumMethod) else SecondRule.NONE
