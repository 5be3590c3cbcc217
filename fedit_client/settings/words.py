"""A setting said back as the rule that it is, so that a slip of the hand is seen at once."""

from collections.abc import Callable
from typing import Any, Final

from pydantic.fields import FieldInfo

from fedit_client.config import ClientConfig
from fedit_client.manners.words import RULES as POLITE_RULES
from fedit_client.settings.origin import shown
from fedit_client.settings.project_file import leaves
from fedit_protocol.words import counted

_PREFER: Final = {
    "auto": "trains on a GPU if there is one that can be used",
    "cpu": "trains on the CPU, even where there is a GPU",
    "cuda": "trains on a GPU or not at all",
}

_STORES: Final = {
    "auto": "the system's keyring where one works, else in a private file",
    "keyring": "the system's keyring or nowhere",
    "file": "a file that only you can read",
}

_RULES: Final[dict[str, Callable[[Any], str]]] = {
    "device.prefer": lambda value: _PREFER.get(value, str(value)),
    "device.threads": lambda value: (
        f"trains with {counted(value, 'CPU thread')}" if value else "trains with the CPU threads that are free"
    ),
    "model": lambda value: f"takes the base model from {value}" if value else "takes the base model that the task says",
    "identity.store": lambda value: (
        f"keeps a new key of this device in {_STORES[value]}; fedit-client identity --move moves the one it has"
    ),
    "privacy.outbox": lambda value: (
        "keeps a readable copy of every upload on this disk" if value else "keeps no copy of what it uploads"
    ),
    "privacy.outbox_max_mb": lambda value: f"keeps the newest uploads, {value} MB of them at most",
    **{f"polite.{name}": say for name, say in POLITE_RULES.items()},
    "network.max_wait_s": lambda value: f"tries a lost server again after {value:g} s at the latest",
    "network.no_proxy": lambda value: (
        f"reaches {value} without a proxy" if value else "goes through this machine's proxy where there is one"
    ),
    "network.enroll_wait_s": lambda value: f"waits up to {value:g} s for an enrolment authority that lives apart",
}


def rule(key: str, value: Any) -> str:
    """Return what a setting makes this client do, in words; its description where there are no better ones."""
    said = _RULES.get(key)
    if said is not None:
        return f"this client {said(value)}"
    field = next((found for name, found in leaves(ClientConfig) if name == key), FieldInfo())
    return f"{field.description or key}: {shown(value)}"
