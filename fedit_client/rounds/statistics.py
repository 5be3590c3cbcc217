"""From what training has measured to the figures that go under the mask, each a whole number of a declared range."""

from fedit_client.training import LocalResult
from fedit_protocol.metrics import ClientReport
from fedit_protocol.statistics import statistic_specs
from fedit_protocol.task import Task


def report_of(local: LocalResult, task: Task) -> ClientReport:
    """Return what a device says of its round; of what a task asks for besides, 0 where training measured nothing."""
    asked = {spec.name: spec.maximum for spec in statistic_specs(task)}
    found = {name: min(round(local.statistics.get(name, 0)), most) for name, most in asked.items()}
    return ClientReport(local.examples, local.train_loss, local.held_out_loss, statistics=found)
