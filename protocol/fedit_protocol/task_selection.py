"""How a task draws its devices: `round.selection`, and the table `[selection]` with what the rules need (TASK.md)."""

from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from fedit_protocol.task_tables import Section, absent_at, distinct

if TYPE_CHECKING:
    from fedit_protocol.task import Task

Domain = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\s].*$")]

MOST_LIKELIHOOD_RATIO: Final = 4.0
"""What joining may say of a device's utility at most: π_max / π_min."""

WEIGHT_STEPS: Final = 4
"""Self-selection: an inverse weight is a whole number of such parts of a device's own weight."""


class Selection(StrEnum):
    """How a cohort is drawn from the clients that are free (`fedit_protocol.selection`)."""

    UNIFORM = "uniform"
    FIRST_COME = "first_come"
    STRATIFIED = "stratified"
    RESOURCE_AWARE = "resource_aware"
    SELF = "self"
    OORT = "oort"
    POWER_OF_CHOICE = "power_of_choice"


SEEN: Final = frozenset({Selection.OORT, Selection.POWER_OF_CHOICE})
"""What draws by the losses of single devices: in trusted mode only."""

SPARE: Final = 1.5
"""Self-selection: so many times `cohort_min` join on average at least, for a draw may turn out smaller."""

DECLARED: Final = frozenset({Selection.STRATIFIED, Selection.RESOURCE_AWARE, Selection.OORT})
"""What draws by what devices say of themselves when they check in."""


class SelectionSpec(Section):
    """`[selection]`: the categories that are counted, and how devices decide for themselves."""

    domains: Annotated[tuple[Domain, ...], AfterValidator(distinct)] = Field(
        (),
        max_length=64,
        description="the categories of rows whose coverage each round reports, as a count of devices inside the mask;"
        " stratified draws by them",
    )
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (),
        exclude_if=absent_at(()),
        description="what each domain is of all rows together, in the sorted order of domains: one of less than 10 %"
        " counts from half of it on, instead of from 5 % of a device's rows",
    )
    join_share: float = Field(
        0.5,
        gt=0,
        le=1,
        exclude_if=absent_at(0.5),
        description="self: how many of the invited join, on average",
    )
    join_least: float = Field(
        0.25, gt=0, le=1, exclude_if=absent_at(0.25), description="self: least probability with which a device joins"
    )
    join_most: float = Field(
        1.0, gt=0, le=1, exclude_if=absent_at(1.0), description="self: largest probability; at most 4 times the least"
    )

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if self.shares and len(self.shares) != len(self.domains):
            wanted = f"give {len(self.domains)}, in the sorted order of domains" if self.domains else "name the domains"
            raise ValueError(
                f"selection.shares has {len(self.shares)} numbers for {len(self.domains)} domains: {wanted}, or leave"
                " it out"
            )
        if self.join_least > self.join_most:
            raise ValueError(
                f"selection.join_least = {self.join_least:g} exceeds join_most = {self.join_most:g}: set join_least ="
                f" {self.join_most:g} or less"
            )
        if not self.join_least <= self.join_share <= self.join_most:
            raise ValueError(
                f"selection.join_share = {self.join_share:g} is not between join_least = {self.join_least:g} and"
                f" join_most = {self.join_most:g}: set join_share ="
                f" {min(max(self.join_share, self.join_least), self.join_most):g}"
            )
        if self.join_most > MOST_LIKELIHOOD_RATIO * self.join_least:
            raise ValueError(
                "selection.join_most is at most 4 times join_least, so that joining says little of a device: set"
                f" join_most = {MOST_LIKELIHOOD_RATIO * self.join_least:g} or less"
            )
        return self

    @property
    def weight_factor(self) -> int:
        """How much larger a device's whole weight may be where devices decide for themselves."""
        return ceil(round(WEIGHT_STEPS * self.join_most / self.join_least, 9))


def least_free(task: "Task") -> int:
    """Return how many devices must be free before a round may open: more where some of them will not join."""
    policy, spec = task.round, task.selection
    if policy.selection is not Selection.SELF or spec.join_least == 1:
        return policy.least_clients
    return min(policy.most_clients, ceil(round(SPARE * policy.cohort_min / spec.join_share, 9)))


def check_selection(task: "Task") -> None:
    """Raise ValueError with the reason and the nearest valid setting if the selection does not fit the task."""
    rule, policy, masked = task.round.selection, task.round, task.round.mode == "masked"
    if rule in SEEN and masked:
        raise ValueError(
            f"round.selection = {rule} needs each device's own loss, which masks hide: the nearest that works on sums"
            " is round.selection = self; or set round.mode = trusted"
        )
    if rule is Selection.STRATIFIED and not task.selection.domains:
        raise ValueError("round.selection = stratified needs selection.domains: name the categories, or take uniform")
    if rule is not Selection.SELF:
        return
    where = "round.selection = self"
    if not masked:
        raise ValueError(f"{where} hides why a device joined, and mode = trusted hides nothing: take uniform")
    if task.privacy:
        raise ValueError(f"{where} weighs devices unlike, and [privacy] needs all alike: take uniform")
    if task.fairness and task.fairness.rule != "rows":
        raise ValueError(f"{where} and fairness.rule = {task.fairness.rule} both decide what a device weighs: take one")
    if policy.cohorts > 1:
        raise ValueError(f"{where} is defined for round.cohorts = 1 only: take uniform")
    joining = policy.cohort_size * task.selection.join_share
    if joining < SPARE * policy.cohort_min and task.selection.join_least < 1:
        raise ValueError(
            f"{where}: of {policy.cohort_size} invited {joining:g} join on average, fewer than {SPARE:g} times"
            f" cohort_min = {policy.cohort_min}: raise cohort_size or selection.join_share"
        )
    if task.encoding.max_weight * task.selection.weight_factor > 1024:
        raise ValueError(f"{where}: encoding.max_weight is at most {1024 // task.selection.weight_factor}")
