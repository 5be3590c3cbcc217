"""Tasks whose devices hold the base in several classes, with public canary rows."""

from dataclasses import asdict
from typing import Any

from fedit_protocol.metrics import CohortReport
from fedit_protocol.task import Quantization, TaskDocument
from fedit_protocol.task_base import CanaryRow, CanarySpec
from fedit_protocol.testing import small_task

NF4_BF16 = (Quantization.NF4, Quantization.BF16)


def canary_task(members: int, classes: tuple[Quantization, ...], **policy: object) -> TaskDocument:
    """Return a document for `members` devices of these classes and an adapter of eight coordinates."""
    document = small_task(members, 8, **policy)
    rows = (CanaryRow(instruction="What is a canary?", response="A small bird."),)
    base = document.task.base.model_copy(update={"classes": classes, "quantization": classes[0]})
    task = document.task.model_copy(update={"base": base, "canary": CanarySpec(rows=rows)})
    return document.model_copy(update={"task": task})


def figures_of(report: CohortReport) -> dict[str, Any]:
    """Return a report as vectors show it: without what the round has none of, as before."""
    later = ("canary", "domains", "statistics")
    return {name: value for name, value in asdict(report).items() if value or name not in later}
