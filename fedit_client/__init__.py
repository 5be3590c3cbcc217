"""The FedIT client as a library: join a federation, train on rows that stay here, use the adapter that comes of it.

Importing this is quick: the parts load when they are first used, and torch only ever in a process of its own.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fedit_protocol.errors import (
    ConfigError,
    ConsentError,
    DataError,
    DeviceError,
    FeditError,
    MembershipError,
    ModelError,
    ProtocolError,
    SecurityError,
    StorageError,
    TaskRefusedError,
    TransportError,
)

if TYPE_CHECKING:
    from fedit_client.client import Client
    from fedit_client.config import ClientConfig
    from fedit_client.consent.terms import Consent, ConsentSummary
    from fedit_client.data import DataSource, Message, Record, Role, RowFile, RowProblem, Shape
    from fedit_client.events import Event, EventKind, RoundStage
    from fedit_client.hardware.device import DevicePlan
    from fedit_client.membership.joined import Membership
    from fedit_client.membership.leaving import LeaveReceipt
    from fedit_client.membership.offers import TaskOffer
    from fedit_client.records.payloads import Payload
    from fedit_client.rounds.rehearsal import DryRun
    from fedit_client.sync import SyncClient
    from fedit_client.training import LocalResult, PauseSignal, Trainer, TrainingProgress, TrainingRequest

_HOMES = {
    "Client": "client",
    "ClientConfig": "config",
    "Consent": "consent.terms",
    "ConsentSummary": "consent.terms",
    "DataSource": "data",
    "DevicePlan": "hardware.device",
    "DryRun": "rounds.rehearsal",
    "Event": "events",
    "EventKind": "events",
    "LeaveReceipt": "membership.leaving",
    "LocalResult": "training",
    "Membership": "membership.joined",
    "Message": "data",
    "PauseSignal": "training",
    "Payload": "records.payloads",
    "Record": "data",
    "Role": "data",
    "RoundStage": "events",
    "RowFile": "data",
    "RowProblem": "data",
    "Shape": "data",
    "SyncClient": "sync",
    "TaskOffer": "membership.offers",
    "Trainer": "training",
    "TrainingProgress": "training",
    "TrainingRequest": "training",
}

__all__ = [
    "Client",
    "ClientConfig",
    "ConfigError",
    "Consent",
    "ConsentError",
    "ConsentSummary",
    "DataError",
    "DataSource",
    "DeviceError",
    "DevicePlan",
    "DryRun",
    "Event",
    "EventKind",
    "FeditError",
    "LeaveReceipt",
    "LocalResult",
    "Membership",
    "MembershipError",
    "Message",
    "ModelError",
    "PauseSignal",
    "Payload",
    "ProtocolError",
    "Record",
    "Role",
    "RoundStage",
    "RowFile",
    "RowProblem",
    "SecurityError",
    "Shape",
    "StorageError",
    "SyncClient",
    "TaskOffer",
    "TaskRefusedError",
    "Trainer",
    "TrainingProgress",
    "TrainingRequest",
    "TransportError",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
