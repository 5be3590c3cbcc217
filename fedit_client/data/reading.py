"""A file or rows in memory become a RowFile; nothing is dropped unless the caller asked, and then it is counted."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from fedit_client.data.columns import Columns, Place, Wishes, check_columns, decide_shape, renamed
from fedit_client.data.files import NumberedRow, numbered_rows
from fedit_client.data.records import Record, RowFile, RowProblem, Shape
from fedit_client.data.shapes import WRONG_TYPE, Row, known_columns, to_record
from fedit_protocol.errors import DataError
from fedit_protocol.words import counted

OnError = Literal["stop", "skip"]

ROWS_LOOKED_AT: Final = 200
_LINES_NAMED: Final = 5


def read_records(
    path: Path, *, shape: Shape | None = None, columns: Columns | None = None, on_error: OnError = "stop"
) -> RowFile:
    """Return the records of one file; its first 200 rows say which shape it has, unless that is given.

    `columns` gives our names to columns of the file. Raises DataError: D001 missing or unreadable file, D002 empty,
    D003 unknown format, D004 unknown or missing columns, D005 broken line, D006 two shapes or columns could be meant,
    D007 wrong type, D008 empty text, D009 roles out of order, D010 pyarrow is missing, D011 nothing usable is left,
    D014 no answer at the end, D017 an unknown name in `columns`, D018 plain text that nobody asked for.
    """
    return made_records(numbered_rows(path), Place(str(path)), Wishes(columns or {}, shape), on_error, path)


def records_from(
    rows: Iterable[Mapping[str, Any]],
    *,
    shape: Shape | None = None,
    columns: Columns | None = None,
    on_error: OnError = "stop",
) -> RowFile:
    """Return the records of rows in memory, numbered from 1; raises DataError like `read_records`."""
    numbered: Iterable[NumberedRow] = (
        (number, row) if isinstance(row, Mapping) else RowProblem(number, WRONG_TYPE, "not a mapping of columns")
        for number, row in enumerate(rows, start=1)
    )
    return made_records(numbered, Place("the given rows", in_memory=True), Wishes(columns or {}, shape), on_error)


def made_records(
    rows: Iterable[NumberedRow], place: Place, wishes: Wishes, on_error: OnError, path: Path | None = None
) -> RowFile:
    """Return the records that numbered rows become; raises DataError like `read_records`."""
    numbered = list(rows)
    where = place.text
    if not numbered:
        raise no_row(where)
    readable = [item[1] for item in numbered if not isinstance(item, RowProblem)]
    if not readable:
        stop_for([item for item in numbered if isinstance(item, RowProblem)], len(numbered), place)
    looked_at = readable[:ROWS_LOOKED_AT]
    check_columns(looked_at, wishes.columns, place)
    shape = decide_shape([renamed(row, wishes.columns) for row in looked_at], wishes, place)
    made = [
        item if isinstance(item, RowProblem) else to_record(renamed(item[1], wishes.columns), shape, item[0])
        for item in numbered
    ]
    problems = tuple(item for item in made if isinstance(item, RowProblem))
    if problems and on_error == "stop":
        stop_for(problems, len(made), place)
    records = tuple(item for item in made if isinstance(item, Record))
    if not records:
        raise DataError(
            f"none of {counted(len(made), 'row')} can be used, so there is nothing to learn from; {_first(problems)}",
            code="D011", where=where, fix=place.correct_line(problems[0].code),
        )  # fmt: skip
    ignored = _ignored(readable, shape, wishes.columns)
    return RowFile(records, shape, problems, ignored, path, _notes(shape, wishes, len(records)))


def _notes(shape: Shape, wishes: Wishes, rows: int) -> tuple[str, ...]:
    notes = []
    if wishes.columns:
        notes.append(", ".join(f"{ours} is column {theirs}" for ours, theirs in wishes.columns.items()))
    if shape is Shape.PREFERENCE:
        notes.append(f"the chosen answer of {rows} preferences is used, the rejected one is not")
    if shape is Shape.TEXT:
        notes.append("plain text: every token is trained on, without a chat template")
    return tuple(notes)


def _ignored(rows: list[Row], shape: Shape, columns: Columns) -> tuple[str, ...]:
    read = (known_columns(shape) - set(columns)) | set(columns.values())
    return tuple(sorted({str(column) for row in rows for column in row} - read))


def no_row(where: str) -> DataError:
    """Return what to raise for a source without rows (D002)."""
    return DataError(
        "there is not a single row",
        code="D002",
        where=where,
        fix="fedit-client data check FILE, one with rows in it",
    )


def stop_for(problems: Iterable[RowProblem], rows: int, place: Place) -> NoReturn:
    """Raise one DataError for all of them: the first one's code and reason, the first lines, and the count."""
    found = list(problems)
    code, skippable = found[0].code, len(found) < rows
    lines = ", ".join(str(problem.line) for problem in found[:_LINES_NAMED])
    more = " …" if len(found) > _LINES_NAMED else ""
    where = f"{place.text} line{'s' * (len(found) != 1)} {lines}{more}"
    raise DataError(
        f"{len(found):,} of {counted(rows, 'row')} cannot be used; {_first(found)}",
        code=code,
        where=where + (place.show_hint(code) if skippable else ""),
        fix=place.skip_line if skippable else place.correct_line(code),  # to skip all of them would leave nothing
        again="--on-error skip" if skippable and not place.in_memory else None,
    )


def _first(problems: Iterable[RowProblem]) -> str:
    first = next(iter(problems))
    return f"line {first.line}: {first.reason}"
