"""Which format a home folder has. An older one is brought up to date by numbered steps; a newer one is left alone.

Format 1 (versions before 0.2) has no `home.json`. Format 2 keeps each consent as a file of its own. Files that are
merely added need no new format; a format rises when an earlier client would misread what is there.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.paths import Paths
from fedit_protocol.errors import StorageError

FORMAT: Final = 2
"""What this client writes."""

_FILE: Final = "home.json"
Step = Callable[[Paths], None]


def format_of(state: Path) -> int | None:
    """Return the format of a home, None for one that nothing was joined from; raises StorageError S013 if damaged."""
    return _stated(state)[0]


def first_format_of(state: Path) -> int | None:
    """Return the format that a home began with: what came with a later one does not know what was before."""
    return _stated(state)[1]


def _stated(state: Path) -> tuple[int | None, int | None]:
    path = state / _FILE
    with translating(path):
        if not path.exists():
            old = 1 if (state / "membership.json").exists() or (state / "identity.key").exists() else None
            return old, old
        raw = path.read_bytes()
    try:
        stated = json.loads(raw)
        return int(stated["format"]), int(stated.get("first", stated["format"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError("the file that names this home's format cannot be read", code="S013", where=str(path),
                           fix="restore it from a backup; fedit-client help S013") from error  # fmt: skip


def check_home(state: Path) -> None:
    """Raise StorageError S016 for a home that a newer client wrote; nothing in it is read or changed then."""
    found = format_of(state)
    if found is not None and found > FORMAT:
        raise StorageError(
            f"a newer fedit-client wrote this home (format {found}, this one knows {FORMAT}); nothing was changed",
            code="S016",
            where=str(state),
            fix="uv tool upgrade fedit",
        )


def bring_up_to_date(paths: Paths, steps: Mapping[int, Step]) -> list[int]:
    """Carry out the steps that this home lacks, in order, and note its format; return the formats that were reached.

    `steps` maps the format that a step starts from to the step. A step may be interrupted and run again.
    """
    check_home(paths.state)
    found = format_of(paths.state)
    if found == FORMAT:
        return []
    first, reached = first_format_of(paths.state) or FORMAT, []
    for old in range(found or FORMAT, FORMAT):
        steps[old](paths)
        reached.append(old + 1)
        _note(paths, old + 1, first)
    if not reached:
        _note(paths, FORMAT, first)
    return reached


def _note(paths: Paths, number: int, first: int) -> None:
    write_atomic(paths.home_file, json.dumps({"format": number, "first": first}).encode() + b"\n")
