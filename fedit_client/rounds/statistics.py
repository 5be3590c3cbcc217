"""From what training has measured to the figures that go under the mask, each a whole number of a declared range."""

from fedit_client.training import LocalResult
from fedit_protocol.metrics import ClientReport
from fedit_protocol.statistics import counted_statistics, statistic_specs
from fedit_protocol.task import Task


def report_of(local: LocalResult, task: Task, weight: int) -> ClientReport:
    """Return what a device of this weight says of its round; of what a task asks for besides, 0 where nothing is known.

    `weight` is the one that goes under the mask with it.
    """
    asked = {spec.name: spec.maximum for spec in statistic_specs(task)}
    found = {name: min(round(local.statistics.get(name, 0)), most) for name, most in asked.items()}
    found |= counted_statistics(task, local.examples, weight, local.steps)
    return ClientReport(local.examples, local.train_loss, local.held_out_loss, statistics=found)
