"""`data check`: what is in a file, before anything is trained on it."""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from fedit_client.console import Console
from fedit_client.data import RowFile, read_records
from fedit_client.joining import describe_rows
from fedit_protocol.errors import DataError

_SHOWN: Final = 20


def check_file(console: Console, path: Path) -> None:
    """Print what a file holds; raises DataError if rows in it cannot be used, after naming their lines."""
    try:
        rows = read_records(path.expanduser())
    except DataError as error:
        _name_the_lines(console, path, error)
        raise
    console.answer("data check", _data(rows), [f"{path}: {describe_rows(rows)}", *_categories(rows)])


def _name_the_lines(console: Console, path: Path, error: DataError) -> None:
    """Read again, this time past the broken rows, to name all of them."""
    try:
        rows = read_records(path.expanduser(), on_error="skip")
    except DataError:
        return  # the file as a whole cannot be used: the first error says so
    for problem in rows.skipped[:_SHOWN]:
        console.say(f"  line {problem.line}: {problem.reason} ({problem.code})")
    if len(rows.skipped) > _SHOWN:
        console.say(f"  … and {len(rows.skipped) - _SHOWN} more")
    error.fix = error.fix or f"correct them, or: fedit-client join --data {path} --on-error skip"


def _data(rows: RowFile) -> dict[str, object]:
    return {
        "rows": len(rows.records),
        "shape": rows.shape.value,
        "categories": {name or "none": len(records) for name, records in rows.by_category().items()},
        "ignored_columns": list(rows.ignored_columns),
        "skipped": [asdict(problem) for problem in rows.skipped],
    }


def _categories(rows: RowFile) -> list[str]:
    return [f"  {name:<24} {len(records):>6,}" for name, records in rows.by_category().items() if name]
