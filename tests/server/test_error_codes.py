"""An error code means one thing: a person who looks it up must not find another program's page."""

import re
from pathlib import Path
from typing import Final

from fedit_protocol.errors import FeditError

ROOT: Final = Path(__file__).parents[2]

SHARED: Final = {
    "C020": "the task's cohort rules contradict each other",
    "M002": "the base model's files are not those that the task pins",
    "M003": "the folder holds no base model",
    "T004": "the invite has expired",
    "T005": "the invite is used up",
    "T006": "the invite is not known, or was revoked",
    "T008": "the device is not enrolled",
    "U001": "the command line is not understood",
}
"""Codes that server and client, or server and protocol, raise or explain with the same meaning."""


def codes(folder: str) -> set[str]:
    sources = (path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py"))
    return {code for source in sources for code in re.findall(r'"([A-Z]\d{3})"', source)}


def defaults(error: type[FeditError]) -> set[str]:
    """The protocol's own codes: those of the error classes."""
    return {error.default_code}.union(*(defaults(kind) for kind in error.__subclasses__()))


def test_server_and_client_use_a_code_for_one_thing() -> None:
    both = codes("fedit_server") & codes("fedit_client")
    assert both - defaults(FeditError) == SHARED.keys()
    assert "U025" in codes("fedit_server")


def test_the_protocols_codes_keep_their_meaning_on_the_server() -> None:
    protocol = codes("protocol/fedit_protocol") - defaults(FeditError)
    assert codes("fedit_server") & protocol <= SHARED.keys()
