"""What one entry of the lists of deletions is."""

from dataclasses import dataclass
from typing import Final

P: Final = "protocol/fedit_protocol/"
OFF: Final = "if False:"


@dataclass(frozen=True)
class Deletion:
    """One way to build the product without one check."""

    check: str
    what: str
    file: str
    find: str
    put: str
    killer: str
    """The test that fails then: `file::test`, below tests/."""


def attack(file: str, test: str) -> str:
    """Name a test of this folder."""
    return f"attacks/test_{file}.py::test_{test}"
