"""Many virtual clients on few machines, each the real client over a given transport and a given trainer; no server."""

from fedit_client.fleet.availability import Availability, parse_availability
from fedit_client.fleet.dropouts import STEPS, Dropouts
from fedit_client.fleet.launching import Launch, launch
from fedit_client.fleet.places import OpenPlaces, TrainingPlaces
from fedit_client.fleet.settings import FleetSettings
from fedit_client.fleet.speeds import Speeds, parse_speeds

__all__ = [
    "STEPS",
    "Availability",
    "Dropouts",
    "FleetSettings",
    "Launch",
    "OpenPlaces",
    "Speeds",
    "TrainingPlaces",
    "launch",
    "parse_availability",
    "parse_speeds",
]
