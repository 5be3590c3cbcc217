"""From a file's bytes to numbered rows: JSON lines, a JSON list, CSV, parquet. A broken row keeps its line number."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from fedit_client.data.records import RowProblem
from fedit_client.data.shapes import WRONG_TYPE, Row
from fedit_protocol.errors import DataError

NumberedRow = tuple[int, Row] | RowProblem
"""A row with its line, counted from 1, or the line that could not be read."""

_BROKEN: Final = "D006"


def numbered_rows(path: Path) -> Iterator[NumberedRow]:
    """Yield every row of a file, broken ones included.

    Raises DataError for a missing or unreadable file (D001), an unknown format (D003), and for parquet without
    pyarrow (D010)."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise DataError(
            f"cannot read {path.suffix or 'files without an ending'}",
            code="D003",
            where=str(path),
            fix=f"save the rows as one of {known}",
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"the data file {what}", code="D001", where=str(path), fix="check the path after --data")
    try:
        yield from reader(path)
    except OSError as error:
        raise DataError(f"the data file cannot be read: {error.strerror}", code="D001", where=str(path)) from error


def _json_lines(path: Path) -> Iterator[NumberedRow]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _one_line(number, line)


def _one_line(number: int, line: bytes) -> NumberedRow:
    try:
        # A byte order mark can only be on the first line; json refuses it.
        return _as_row(number, json.loads(line.decode("utf-8-sig")))
    except UnicodeDecodeError:
        return RowProblem(number, _BROKEN, "not UTF-8 text")
    except (ValueError, RecursionError):
        return RowProblem(number, _BROKEN, "not valid JSON")


def _as_row(number: int, value: Any) -> NumberedRow:
    if not isinstance(value, dict):
        return RowProblem(number, WRONG_TYPE, "not a JSON object with named columns")
    return number, value


def _json_file(path: Path) -> Iterator[NumberedRow]:
    """A list of objects; a file that starts otherwise is read as JSON lines, which many people call .json."""
    text = _utf8(path)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] != "[":
        yield from _json_lines(path)
        return
    yield from _json_list(text, start + 1)


def _json_list(text: str, position: int) -> Iterator[NumberedRow]:
    """Decode one element after the other, so that each has its line and an early break does not hide the rest."""
    decoder, line = json.JSONDecoder(), 1 + text.count("\n", 0, position)
    while True:
        following = _skip(text, position, " \t\r\n,")
        line, position = line + text.count("\n", position, following), following
        if text[position : position + 1] == "]" and not text[position + 1 :].strip():
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            # Where a broken element ends is anybody's guess: name its line and stop.
            yield RowProblem(line, _BROKEN, "not valid JSON from here on")
            return
        yield _as_row(line, value)
        line, position = line + text.count("\n", position, end), end


def _skip(text: str, position: int, blanks: str) -> int:
    while position < len(text) and text[position] in blanks:
        position += 1
    return position


def _csv(path: Path) -> Iterator[NumberedRow]:
    reader = csv.DictReader(_utf8(path).splitlines(keepends=True), strict=True)
    start = 1
    try:
        for row in reader:
            # A quoted cell may span lines: a row is named by its first.
            start, line = reader.line_num + 1, start + 1 if start == 1 else start
            yield _csv_row(line, row)
    except csv.Error as error:
        yield RowProblem(reader.line_num, _BROKEN, f"not valid CSV from here on: {error}")


def _csv_row(line: int, row: dict[Any, Any]) -> NumberedRow:
    if None in row or None in row.values():
        return RowProblem(line, _BROKEN, "has another number of cells than the header")
    return line, row


def _utf8(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "the data file is not UTF-8 text", code=_BROKEN, where=str(path), fix="save it as UTF-8"
        ) from error


def _parquet(path: Path) -> Iterator[NumberedRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "reading parquet needs pyarrow, which is not installed",
            code="D010",
            where=str(path),
            fix='pip install "fedit[train]"',
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=1024)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
    except pyarrow.ArrowException as error:
        raise DataError("not a readable parquet file", code=_BROKEN, where=str(path)) from error


_READERS: Final[dict[str, Callable[[Path], Iterator[NumberedRow]]]] = {
    ".jsonl": _json_lines,
    ".json": _json_file,
    ".csv": _csv,
    ".parquet": _parquet,
}
