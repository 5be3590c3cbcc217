"""From bytes to numbered rows: JSON, CSV and plain text, packed or not. A broken row keeps its line number."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from fedit_client.data.records import RowProblem
from fedit_client.data.shapes import WRONG_TYPE, Row
from fedit_protocol.errors import DataError

NumberedRow = tuple[int, Row] | RowProblem
"""A row with its line, counted from 1, or the line that could not be read."""

BROKEN: Final = "D005"
_MOST_CELL: Final = 64 * 1024 * 1024
_PACKED: Final = ".gz"


@dataclass(frozen=True)
class RowBytes:
    """Bytes that hold rows, wherever they lie: `name` is for sentences, `ending` says how to read them."""

    name: str
    ending: str
    open: Callable[[], BinaryIO]


def row_bytes(path: Path) -> RowBytes:
    """Return how to read a file, unpacked where its name ends with .gz; raises DataError D003 for other endings."""
    ending = ending_of(path)
    if ending is None:
        raise DataError(
            f"cannot read {path.suffix or 'files without an ending'}",
            code="D003",
            where=str(path),
            fix=f"save the rows as one of {', '.join(ENDINGS)}, then: fedit-client data check FILE",
        )
    if path.suffix.lower() == _PACKED:
        return RowBytes(str(path), ending, lambda: cast(BinaryIO, gzip.open(path, "rb")))
    return RowBytes(str(path), ending, lambda: path.open("rb"))


def ending_of(path: Path) -> str | None:
    """Return the ending that says how to read a file, without .gz; None if nothing here reads it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in ENDINGS else None


def numbered_rows(path: Path) -> Iterator[NumberedRow]:
    """Yield every row of a file, broken ones included.

    Raises DataError for a missing or unreadable file (D001), an unknown format (D003), and for parquet and arrow
    without pyarrow (D010)."""
    if not path.is_file() and (path.exists() or ending_of(path)):
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(
            f"the data file {what}",
            code="D001",
            where=str(path),
            fix=f"ls {path.parent}; then: fedit-client data check FILE",
        )
    yield from rows_of(row_bytes(path))


def rows_of(source: RowBytes) -> Iterator[NumberedRow]:
    """Yield every row behind these bytes; raises DataError like `numbered_rows`."""
    seen = 0
    try:
        for item in _READERS[source.ending](source):
            seen = item.line if isinstance(item, RowProblem) else item[0]
            yield item
    except (gzip.BadGzipFile, EOFError, zlib.error):
        yield RowProblem(seen + 1, BROKEN, "the packed file is damaged from here on; the rest is not read")
    except OSError as error:
        raise DataError(
            f"the data file cannot be read: {error.strerror}",
            code="D001",
            where=source.name,
            fix=f"chmod u+r {source.name}; then: fedit-client data check {source.name}",
        ) from error


def _json_lines(source: RowBytes) -> Iterator[NumberedRow]:
    with source.open() as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _one_line(number, line)


def _one_line(number: int, line: bytes) -> NumberedRow:
    try:
        # A byte order mark can only be on the first line; json refuses it.
        return _as_row(number, json.loads(line.decode("utf-8-sig")))
    except UnicodeDecodeError:
        return RowProblem(number, BROKEN, "not UTF-8 text")
    except (ValueError, RecursionError):
        return RowProblem(number, BROKEN, "not valid JSON")


def _as_row(number: int, value: Any) -> NumberedRow:
    if not isinstance(value, dict):
        return RowProblem(number, WRONG_TYPE, "not a JSON object with named columns")
    return number, value


def _json_file(source: RowBytes) -> Iterator[NumberedRow]:
    """A list of objects, or objects one after the other over several lines, or JSON lines that are called .json."""
    text = _utf8(source)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _json_values(text, start + 1, "]")
    elif _is_json(text[start:].partition("\n")[0]):
        yield from _json_lines(source)
    elif text.strip():
        yield from _json_values(text, start, "")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _json_values(text: str, position: int, end_mark: str) -> Iterator[NumberedRow]:
    """Decode one element after the other, so that each has its line and an early break does not hide the rest."""
    decoder, line = json.JSONDecoder(), 1 + text.count("\n", 0, position)
    while True:
        following = _skip(text, position, " \t\r\n,")
        line, position = line + text.count("\n", position, following), following
        if text[position:].strip() == end_mark:
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            # Where a broken element ends is anybody's guess: name its line and stop.
            yield RowProblem(line, BROKEN, "not valid JSON from here on; the rest is not read")
            return
        yield _as_row(line, value)
        line, position = line + text.count("\n", position, end), end


def _skip(text: str, position: int, blanks: str) -> int:
    while position < len(text) and text[position] in blanks:
        position += 1
    return position


def _csv(source: RowBytes) -> Iterator[NumberedRow]:
    text = _utf8(source)
    header = text.partition("\n")[0]
    # Spreadsheets of half the world write semicolons, for there a comma is in every number.
    return _table(text, ";" if ";" in header and "," not in header else ",")


def _tsv(source: RowBytes) -> Iterator[NumberedRow]:
    return _table(_utf8(source), "\t")


def _table(text: str, delimiter: str) -> Iterator[NumberedRow]:
    before = csv.field_size_limit(_MOST_CELL)  # Python's own limit of 128 KiB is below a long article
    try:
        reader = csv.DictReader(text.splitlines(keepends=True), strict=True, delimiter=delimiter)
        start = 1
        while True:
            try:
                if start == 1 and reader.fieldnames:  # the header
                    start = reader.line_num + 1
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RowProblem(start, BROKEN, _csv_reason(error))
                start = reader.line_num + 1
                continue
            # A quoted cell may span lines: a row is named by its first.
            line, start = start, reader.line_num + 1
            yield _table_row(line, row)
    finally:
        csv.field_size_limit(before)


def _csv_reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "not valid CSV: a quotation mark is opened and never closed, so the rest of the file is inside of it"
    return f"not valid CSV: {error}"


def _table_row(line: int, row: dict[Any, Any]) -> NumberedRow:
    if None in row or None in row.values():
        return RowProblem(line, BROKEN, "has another number of cells than the header")
    return line, row


def _paragraphs(source: RowBytes) -> Iterator[NumberedRow]:
    """Plain text, cut at blank lines; the name of the column is `text`."""
    block: list[str] = []
    for number, line in enumerate([*_utf8(source).splitlines(), ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), {"text": "\n".join(block)}
            block = []


def _utf8(source: RowBytes) -> str:
    with source.open() as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "the data file is not UTF-8 text",
            code=BROKEN,
            where=source.name,
            fix=f"save it as UTF-8, then: fedit-client data check {source.name}",
        ) from error


def _parquet(source: RowBytes) -> Iterator[NumberedRow]:
    pyarrow = _pyarrow(source)
    try:
        with source.open() as file, pyarrow.parquet.ParquetFile(pyarrow.PythonFile(_seekable(file), "r")) as table:
            yield from _numbered(table.iter_batches(batch_size=1024))
    except pyarrow.ArrowException as error:
        raise _damaged(source) from error


def _arrow(source: RowBytes) -> Iterator[NumberedRow]:
    """An Arrow IPC file, or a stream of record batches, which `datasets` gives the same ending."""
    pyarrow = _pyarrow(source)
    try:
        with source.open() as file:
            seekable = pyarrow.PythonFile(_seekable(file), "r")
            try:
                reader = pyarrow.ipc.open_file(seekable)
                batches: Iterator[Any] = (reader.get_batch(place) for place in range(reader.num_record_batches))
            except pyarrow.ArrowInvalid:
                seekable.seek(0)
                batches = iter(pyarrow.ipc.open_stream(seekable))
            yield from _numbered(batches)
    except pyarrow.ArrowException as error:
        raise _damaged(source) from error


def _damaged(source: RowBytes) -> DataError:
    kind = source.ending[1:]
    fix = f"write it again as {kind}, then: fedit-client data check"
    return DataError(f"not a readable {kind} file", code=BROKEN, where=source.name, fix=fix)


def _numbered(batches: Iterator[Any]) -> Iterator[NumberedRow]:
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)


def _seekable(file: BinaryIO) -> BinaryIO:
    return io.BytesIO(file.read()) if isinstance(file, gzip.GzipFile) else file


def _pyarrow(source: RowBytes) -> Any:
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"reading {source.ending[1:]} needs pyarrow, which is not installed",
            code="D010",
            where=source.name,
            fix='pip install "fedit[train]"',
        ) from error
    return pyarrow


_READERS: Final[dict[str, Callable[[RowBytes], Iterator[NumberedRow]]]] = {
    ".jsonl": _json_lines,
    ".json": _json_file,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".txt": _paragraphs,
}
ENDINGS: Final = tuple(_READERS)
