"""The coverage of a round: which of a task's categories its devices have, counted under masks (SPEC, section 23)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fedit_protocol.metrics import MetricSpec
from fedit_protocol.selection import coverage, domains_of
from fedit_protocol.task import Task

COVERS: Final = "covers"
"""The first word of each statistic's name; the domain follows."""


@dataclass(frozen=True)
class Coverage:
    """What a round covers of the task's domains."""

    share: float
    missing: tuple[str, ...]
    """The domains that no device of the round had more than a little of."""


def coverage_specs(task: Task) -> tuple[MetricSpec, ...]:
    """Return one bit for each domain of the task."""
    return tuple(MetricSpec(name=f"{COVERS} {name}", maximum=1) for name in task.selection.domains)


def own_domains(task: Task, categories: Iterable[str]) -> frozenset[str]:
    """Return the domains that a device has more than a little of, given the category of each of its rows."""
    return domains_of(Counter(categories), task.selection.domains, task.selection.shares)


def covered(domains: Iterable[str]) -> dict[str, int]:
    """Return a device's bits."""
    return {f"{COVERS} {name}": 1 for name in domains}


def round_coverage(task: Task, sums: Mapping[str, int]) -> Coverage | None:
    """Return what the sums of the bits say; None for a task without domains, and where nothing was counted."""
    names = task.selection.domains
    counts = {name: sums[key] for name in names if (key := f"{COVERS} {name}") in sums}
    if not counts:
        return None
    return Coverage(coverage(names, counts), tuple(name for name in names if not counts.get(name)))
