"""Local training: what is asked and what comes back, and the trainer that runs it in a process of its own. No torch."""

from fedit_client.training.pause import PauseSignal
from fedit_client.training.request import LocalResult, OnProgress, Trainer, TrainingProgress, TrainingRequest
from fedit_client.training.trainer import WorkerTrainer

__all__ = [
    "LocalResult",
    "OnProgress",
    "PauseSignal",
    "Trainer",
    "TrainingProgress",
    "TrainingRequest",
    "WorkerTrainer",
]
