"""Losses per category and chat, each in a process of its own. No torch here."""

from fedit_client.evaluation.chat import WorkerChat
from fedit_client.evaluation.losses import CategoryLosses, EvaluationRequest, WorkerEvaluator

__all__ = ["CategoryLosses", "EvaluationRequest", "WorkerChat", "WorkerEvaluator"]
