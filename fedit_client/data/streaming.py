"""A source row by row, for programs that look at more rows than fit in memory; `Source.read` is for all at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import has_magic
from itertools import chain, islice
from pathlib import Path

from fedit_client.data.columns import Place, Wishes, check_columns, decide_shape, renamed
from fedit_client.data.files import NumberedRow, numbered_rows, rows_of
from fedit_client.data.hub import hub_rows
from fedit_client.data.reading import ROWS_LOOKED_AT, OnError, no_row, stop_for
from fedit_client.data.records import Record, RowProblem, Shape
from fedit_client.data.shapes import Row, to_record
from fedit_client.data.sources import STDIN, Source, readable_files, stdin_bytes


@dataclass(frozen=True)
class StreamedRow:
    """One row that can be used: all its columns, ours under our names, and the record that it becomes as `shape`."""

    row: Row
    record: Record
    shape: Shape


def stream_rows(source: Source) -> Iterator[StreamedRow | RowProblem]:
    """Yield the rows of a source in order, and those that cannot be used where `on_error` is skip.

    Where it is stop, all rows are looked at first to the end, then the error counts what is wrong. Raises DataError
    like `Source.read`.
    """
    wishes = Wishes(source.columns, source.shape)
    for place, rows in _parts(source):
        yield from _of_part(rows, place, wishes, source.on_error)


def stream_given(rows: Iterable[Row], shape: Shape | None = None) -> Iterator[StreamedRow | RowProblem]:
    """Yield rows in memory in the same way; raises DataError like `records_from`."""
    yield from _of_part(enumerate(rows, start=1), Place("the given rows", in_memory=True), Wishes({}, shape), "stop")


def _parts(source: Source) -> Iterator[tuple[Place, Iterable[NumberedRow]]]:
    path = Path(source.place).expanduser()
    if source.is_stdin:
        yield Place(STDIN), rows_of(stdin_bytes(source.shape))
    elif source.is_hub:
        yield Place(source.place), hub_rows(source.place, [])
    elif path.is_dir() or has_magic(source.place):
        for file in readable_files(path, source.place)[0]:
            yield Place(str(file)), numbered_rows(file)
    else:
        yield Place(source.place), numbered_rows(path)


def _of_part(
    rows: Iterable[NumberedRow], place: Place, wishes: Wishes, on_error: OnError
) -> Iterator[StreamedRow | RowProblem]:
    remaining = iter(rows)
    first = list(islice(remaining, ROWS_LOOKED_AT))
    if not first:
        raise no_row(place.text)
    looked_at = [item[1] for item in first if not isinstance(item, RowProblem)]
    if not looked_at:
        stop_for([item for item in first if isinstance(item, RowProblem)], len(first), place)
    check_columns(looked_at, wishes.columns, place)
    shape = decide_shape([renamed(row, wishes.columns) for row in looked_at], wishes, place)
    problems: list[RowProblem] = []
    count = 0
    for item in chain(first, remaining):
        count += 1
        row: Row = {} if isinstance(item, RowProblem) else renamed(item[1], wishes.columns)
        made = item if isinstance(item, RowProblem) else to_record(row, shape, item[0])
        if isinstance(made, Record):
            yield StreamedRow(row, made, shape)
        elif on_error == "skip":
            yield made
        else:
            problems.append(made)
    if problems:
        stop_for(problems, count, place)
