"""A file or rows in memory become a RowFile; nothing is dropped unless the caller asked, and then it is counted."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from fedit_client.data.files import NumberedRow, numbered_rows
from fedit_client.data.records import Record, RowFile, RowProblem, Shape
from fedit_client.data.shapes import REQUIRED, WRONG_TYPE, Row, fitting_shapes, known_columns, to_record
from fedit_protocol.errors import DataError

OnError = Literal["stop", "skip"]

_ROWS_LOOKED_AT: Final = 200
_LINES_NAMED: Final = 5


def read_records(path: Path, *, shape: Shape | None = None, on_error: OnError = "stop") -> RowFile:
    """Return the records of a .jsonl, .json, .csv or .parquet file; the shape is detected unless it is given.

    Raises DataError: D001 missing or unreadable file, D002 empty, D003 unknown format, D004 unknown or missing columns,
    D005 two shapes fit equally, D006 broken line, D007 wrong type, D008 empty text, D009 roles out of order,
    D010 pyarrow is missing, D011 nothing usable is left, D014 no answer at the end.
    """
    return _row_file(list(numbered_rows(path)), path, shape, on_error)


def records_from(
    rows: Iterable[Mapping[str, Any]], *, shape: Shape | None = None, on_error: OnError = "stop"
) -> RowFile:
    """Return the records of rows in memory, numbered from 1; raises DataError like `read_records`."""
    numbered: list[NumberedRow] = [
        (number, row) if isinstance(row, Mapping) else RowProblem(number, WRONG_TYPE, "not a mapping of columns")
        for number, row in enumerate(rows, start=1)
    ]
    return _row_file(numbered, None, shape, on_error)


def _row_file(numbered: list[NumberedRow], path: Path | None, shape: Shape | None, on_error: OnError) -> RowFile:
    where = str(path) if path else "the given rows"
    if not numbered:
        raise DataError("there is not a single row", code="D002", where=where, fix="give a file with rows in it")
    readable = [item[1] for item in numbered if not isinstance(item, RowProblem)]
    if not readable:
        _stop([item for item in numbered if isinstance(item, RowProblem)], len(numbered), where)
    shape = shape or _detect(readable, where)
    made = [item if isinstance(item, RowProblem) else to_record(item[1], shape, item[0]) for item in numbered]
    problems = tuple(item for item in made if isinstance(item, RowProblem))
    if problems and on_error == "stop":
        _stop(problems, len(made), where)
    records = tuple(item for item in made if isinstance(item, Record))
    if not records:
        raise DataError(f"none of {len(made)} rows can be used; {_first(problems)}", code="D011", where=where)
    return RowFile(records, shape, problems, _ignored(readable, shape), path)


def _detect(rows: list[Row], where: str) -> Shape:
    fitting = fitting_shapes(rows[:_ROWS_LOOKED_AT])
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        seen = ", ".join(sorted({str(column) for row in rows[:_ROWS_LOOKED_AT] for column in row})) or "none"
        wanted = " | ".join(", ".join(columns) for columns in REQUIRED.values())
        raise DataError(
            f"no known set of columns: found {seen}", code="D004", where=where, fix=f"name the columns one of: {wanted}"
        )
    sets = " and ".join(f"{shape} ({', '.join(REQUIRED[shape])})" for shape in fitting)
    raise DataError(
        f"the columns fit two shapes equally: {sets}",
        code="D005",
        where=where,
        fix="remove or rename the columns of one of them",
    )


def _ignored(rows: list[Row], shape: Shape) -> tuple[str, ...]:
    return tuple(sorted({str(column) for row in rows for column in row} - known_columns(shape)))


def _stop(problems: Iterable[RowProblem], rows: int, where: str) -> None:
    """Raise one DataError for all of them: the first one's code and reason, the first lines, and the count."""
    found = list(problems)
    lines = ", ".join(str(problem.line) for problem in found[:_LINES_NAMED])
    more = " …" if len(found) > _LINES_NAMED else ""
    raise DataError(
        f"{len(found)} of {rows} rows cannot be used; {_first(found)}",
        code=found[0].code,
        where=f"{where} line{'s' if len(found) > 1 else ''} {lines}{more}",
        fix="correct these lines, or leave them out with --on-error skip",
    )


def _first(problems: Iterable[RowProblem]) -> str:
    first = next(iter(problems))
    return f"line {first.line}: {first.reason}"
