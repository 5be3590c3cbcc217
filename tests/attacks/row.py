"""One row of the table of failures and attacks (`table`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One failure or attack."""

    attack: str
    checks: tuple[str, ...]
    """Empty where the defence is not a check but the construction: fresh keys, a journal, a full ring."""
    tests: tuple[str, ...]


def here(file: str, *names: str) -> tuple[str, ...]:
    """Name tests of one file of this folder."""
    return tuple(f"attacks/test_{file}.py::test_{name}" for name in names)
