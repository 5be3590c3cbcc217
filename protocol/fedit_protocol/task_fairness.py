"""The table `[fairness]` of a task (TASK.md): its domains, and the rule that says how much a device counts."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from fedit_protocol.collusion import MAX_COHORT, check_hiding
from fedit_protocol.task_tables import Section, distinct

if TYPE_CHECKING:
    from fedit_protocol.task import Task

MAX_DOMAINS: Final = 64

DomainName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^\S(?:.*\S)?$")]
"""A domain as the rows' `category` has it: closed_qa, de, …"""


class FairRule(StrEnum):
    """How much a device's update counts in a round's mean (METHODS.md, section 4)."""

    ROWS = "rows"
    AFL = "afl"
    TERM = "term"
    QFFL = "qffl"


class FairnessSpec(Section):
    """`[fairness]`, optional: losses by domain, and weights that leave no domain or device behind."""

    domains: Annotated[tuple[DomainName, ...], AfterValidator(distinct)] = Field(
        (),
        max_length=MAX_DOMAINS,
        description="categories (or languages) of rows whose losses are shown, each as a sum over all devices that have"
        " it; each device says which of them it has",
    )
    hidden_among: int = Field(
        3,
        ge=3,
        le=MAX_COHORT,
        description="fewest honest devices behind the loss of a domain; with fewer it is not sent",
    )
    rule: FairRule = Field(
        FairRule.ROWS,
        description="rows: a device counts by its rows; afl: rows of domains with a high loss count more; term: devices"
        " with a high loss count more; qffl: the same by a power of the loss, with steps that fit. A weight beyond"
        " encoding.max_weight is cut: leave room above what rows alone come to",
    )
    step: float = Field(0.1, gt=0, le=10, description="afl: how fast the weights of domains follow their losses")
    floor: float = Field(0.5, ge=0, lt=1, description="afl: least weight of a domain, in even shares of all domains")
    tilt: float = Field(1.0, ge=0, le=10, description="term: t; 0 is rows")
    power: float = Field(1.0, ge=0, le=5, description="qffl: q; 0 has every device count alike")
    lipschitz: float = Field(
        1.0, gt=0, le=1e6, description="qffl: L; larger makes smaller steps where updates are long"
    )
    loss_cap: float = Field(5.0, gt=0, le=30, description="qffl: losses beyond this many nats count as this")

    @model_validator(mode="after")
    def _rule_has_what_it_needs(self) -> Self:
        if self.rule is FairRule.AFL and len(self.domains) < 2:
            raise ValueError("fairness.rule = afl weighs domains against each other: name two or more in domains")
        if self.rule is FairRule.ROWS and not self.domains:
            raise ValueError("[fairness] says nothing: name domains, or set rule to term or qffl")
        return self


def check_fairness(task: "Task") -> None:
    """Raise ValueError, with the nearest valid setting, if `[fairness]` does not go with the rest of a task."""
    spec = task.fairness
    if spec is None:
        return
    if task.privacy or task.round.mode != "masked":
        raise ValueError(
            "[fairness] needs round.mode = masked and no [privacy]: its losses are sums without noise; leave it out"
        )
    if spec.domains:
        check_hiding(task.round, spec.hidden_among, "fairness.hidden_among")
    if spec.rule is not FairRule.ROWS and task.encoding.max_weight == 1:
        raise ValueError(
            f"fairness.rule = {spec.rule} weighs devices, but encoding.max_weight = 1 lets them all weigh the same:"
            " raise max_weight, or set rule = rows"
        )
    if spec.rule is FairRule.QFFL and task.round.combine != "weighted":
        raise ValueError("fairness.rule = qffl needs round.combine = weighted: its steps are sums; take term or afl")
