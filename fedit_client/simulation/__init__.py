"""Federations of virtual clients in one process, for experiments: real training, the methods' real halves, no network."""

from fedit_client.simulation.carriers import Carrier
from fedit_client.simulation.federation import Choice, Federation, Progress, Tamper, VirtualClient
from fedit_client.simulation.learner import Figures, Learner, document_of

__all__ = [
    "Carrier",
    "Choice",
    "Federation",
    "Figures",
    "Learner",
    "Progress",
    "Tamper",
    "VirtualClient",
    "document_of",
]
