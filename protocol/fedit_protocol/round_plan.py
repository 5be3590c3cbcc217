"""Which sums a task's rounds have and over which rings: both sides derive it alike from the published document."""

from fedit_protocol.messages import SecondRule, SumSpec
from fedit_protocol.methods import METHODS, TwoSumMethod
from fedit_protocol.secagg.ring import cohort_rules, ring_spec
from fedit_protocol.task import TaskDocument

__all__ = ["cohort_rules", "second_rule", "sum_specs"]


def sum_specs(document: TaskDocument) -> tuple[SumSpec, ...]:
    """Return the sums of a round in order; raises ConfigError C021 if a ring would be too wide."""
    ring = ring_spec(document.task, document.layout.size)
    method = METHODS[document.task.method.name]
    if not isinstance(method, TwoSumMethod):
        return (SumSpec(index=1, purpose="update", ring=ring),)
    first, second = method.rings(document, ring)
    return (SumSpec(index=1, purpose="update", ring=first), SumSpec(index=2, purpose="correction", ring=second))


def second_rule(document: TaskDocument) -> SecondRule:
    """Return when a second sum of this task may be opened."""
    method = METHODS[document.task.method.name]
    return SecondRule.SUBSET if isinstance(method, TwoSumMethod) else SecondRule.NONE
