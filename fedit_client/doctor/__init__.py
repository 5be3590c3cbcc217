"""`fedit-client doctor`: what stands in the way on this machine, the worst first, each with what helps."""

from fedit_client.doctor.checkup import Checkup, examine
from fedit_client.doctor.finding import Finding, Level

__all__ = ["Checkup", "Finding", "Level", "examine"]
