"""Federations of virtual clients in one process, for experiments: real training, real halves of methods, no network."""

from fedit_client.simulation.carriers import Carrier
from fedit_client.simulation.federation import Choice, Federation, Progress, Tamper, VirtualClient, train_seed
from fedit_client.simulation.learner import Figures, Learner, LocalWork, document_of

__all__ = [
    "Carrier",
    "Choice",
    "Federation",
    "Figures",
    "Learner",
    "LocalWork",
    "Progress",
    "Tamper",
    "VirtualClient",
    "document_of",
    "train_seed",
]
