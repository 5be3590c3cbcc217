"""Further figures that a task asks for, as whole numbers behind the five of every round; read as sums only.

Each is a non-negative integer of a declared range and has a name whose first word says its kind. A device that has
nothing to say of one sends 0.
"""

from collections.abc import Callable, Iterable
from typing import Final

from fedit_protocol import diversity, fairness, rank_blocks, task_compression
from fedit_protocol.control_variates import DEVICES, scaffold_specs
from fedit_protocol.coverage import COVERS, coverage_specs
from fedit_protocol.metrics import MetricSpec
from fedit_protocol.nova import STEPS, nova_specs, steps_of, weighted_steps
from fedit_protocol.self_selection import INVERSE, UTILITY, self_selection_specs
from fedit_protocol.task import Task

KINDS: Final[frozenset[str]] = frozenset(
    {COVERS, DEVICES, INVERSE, STEPS, UTILITY, *fairness.KINDS, *task_compression.KINDS, *rank_blocks.KINDS}
    | diversity.KINDS
)
"""The first words that a name may have; an offer that asks for another kind is refused (C3)."""


TABLES: Final[tuple[Callable[[Task], tuple[MetricSpec, ...]], ...]] = (
    fairness.fair_specs,
    nova_specs,
    self_selection_specs,
    scaffold_specs,
    coverage_specs,
    rank_blocks.rank_specs,
    diversity.diversity_specs,
)
"""What each part of a task asks for, in its order on the wire."""


def statistic_specs(task: Task) -> tuple[MetricSpec, ...]:
    """Return what a task's devices add to the tail beside the fixed metrics, in its order on the wire."""
    return tuple(spec for table in TABLES for spec in table(task))


def are_known(specs: Iterable[MetricSpec]) -> bool:
    """Say whether each of these is of a kind that this version can send."""
    return all(spec.name.split(maxsplit=1)[0] in KINDS for spec in specs)


def counted_statistics(task: Task, rows: int, weight: int, made: int = 0) -> dict[str, int]:
    """Return those figures of a device that follow from its rows, weight and steps (`made`, as in `nova`) alone."""
    known = {DEVICES: 1, STEPS: weighted_steps(steps_of(task, rows, made), weight)}
    return {spec.name: known[spec.name] for spec in statistic_specs(task) if spec.name in known}
