"""Losses per category, figures per row, and chat, each in a process of its own. No torch here."""

from fedit_client.evaluation.chat import WorkerChat
from fedit_client.evaluation.figures import Measured, MeasureRequest, RowFigures, WorkerMeasurer
from fedit_client.evaluation.losses import CategoryLosses, EvaluationRequest, WorkerEvaluator

__all__ = [
    "CategoryLosses",
    "EvaluationRequest",
    "MeasureRequest",
    "Measured",
    "RowFigures",
    "WorkerChat",
    "WorkerEvaluator",
    "WorkerMeasurer",
]
