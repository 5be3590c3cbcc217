"""Whether the rounds of a task can take place at all: thresholds, ring and method, for every cohort that it allows."""

from fedit_protocol.collusion import MAX_COHORT
from fedit_protocol.errors import ConfigError
from fedit_protocol.limits import LEAST_SURVIVORS_OF_TWO_SUMS
from fedit_protocol.methods import METHODS, SketchingMethod, TwoSumMethod
from fedit_protocol.secagg.blocks import check_opening
from fedit_protocol.secagg.ring import cohort_rules, ring_spec
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode, Task


def check_feasible(task: Task) -> None:
    """Raise ConfigError C020 or C021 unless every size of cohort that the task allows has thresholds and a ring."""
    if task.round.mode is Mode.TRUSTED:
        if task.round.min_survivors > task.round.cohort_min:
            reason = f"min_survivors = {task.round.min_survivors} exceeds cohort_min = {task.round.cohort_min}"
            raise ConfigError(reason, code="C020")
        return
    sizes = range(task.round.cohort_min, task.round.ring_size + 1)
    _check_said(task, min(Thresholds.of(members, cohort_rules(task)).min_survivors for members in sizes))
    ring_spec(task, 1)
    check_opening(task)


def says_much(task: Task) -> bool:
    """Say whether the task's method sums what says too much of a few."""
    return isinstance(METHODS[task.method.name], TwoSumMethod | SketchingMethod)


def _check_said(task: Task, survivors: int) -> None:
    """Raise ConfigError C020 for sketches of products over so few that every device would refuse the task (C0)."""
    if survivors >= LEAST_SURVIVORS_OF_TWO_SUMS or not says_much(task):
        return
    raise ConfigError(
        f"method.name = {task.method.name} says too much of {survivors} survivors, and devices refuse fewer than"
        f" {LEAST_SURVIVORS_OF_TWO_SUMS}: {_enough(task)}, or take ffa_lora, which is exact too",
        code="C020",
    )


def _enough(task: Task) -> str:
    """Return what to set, for so many to be left that sketches may be summed."""
    if 0 < task.round.min_survivors < LEAST_SURVIVORS_OF_TWO_SUMS:
        return "leave out round.min_survivors"
    sizes = range(LEAST_SURVIVORS_OF_TWO_SUMS, MAX_COHORT + 1)
    left = (Thresholds.of(members, cohort_rules(task)).min_survivors for members in sizes)
    least = next(n for n, survivors in zip(sizes, left, strict=True) if survivors >= LEAST_SURVIVORS_OF_TWO_SUMS)
    size = f" and cohort_size = {least}" if task.round.cohort_size < least else ""
    return f"set round.cohort_min = {least}{size}"
