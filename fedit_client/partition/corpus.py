"""What a partition is made from: each row's category and length, a digest of all rows, and the rows as lines."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fedit_client.data import Record, Role, RowProblem, Shape, Source
from fedit_client.data.shapes import to_record
from fedit_client.data.streaming import StreamedRow, stream_given, stream_rows
from fedit_client.home.durable import translating
from fedit_protocol.errors import DataError
from fedit_protocol.words import counted

Indices = NDArray[np.int64]
"""Row numbers, counted from 0 over the rows that can be used."""

CATEGORY: Final = "category"
_IN_MEMORY: Final = 64 * 1024 * 1024
_MOST_NAMED: Final = 12
# Dates and the like come from parquet; as text they are what a JSON file would have held.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, default=str)


@dataclass(frozen=True)
class Labels:
    """What one column says about each row: `codes` (rows,) int64 into `names`, which are sorted."""

    field: str
    names: tuple[str, ...]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, field: str, values: Sequence[str]) -> "Labels":
        """Return the labels of these texts, one a row."""
        names = tuple(sorted(set(values)))
        places = {name: place for place, name in enumerate(names)}
        return cls(field, names, np.array([places[value] for value in values], dtype=np.int64))

    def counts(self, rows: Indices) -> NDArray[np.int64]:
        """Return how many of these rows have each name, (names,)."""
        return np.bincount(self.codes[rows], minlength=len(self.names))

    def of_rows(self, rows: Indices) -> "Labels":
        """Return the labels of these rows alone, without names that none of them has."""
        found, codes = np.unique(self.codes[rows], return_inverse=True)
        return Labels(self.field, tuple(self.names[place] for place in found), codes.astype(np.int64))


@dataclass(frozen=True)
class Corpus:
    """A data set as partitioners see it. Rows are laid by in a temporary file once they are many, so close it.

    `lengths` (rows,) int64 are the characters of a row's answers. `digest` is SHA-256 over the rows as JSON lines: it
    depends on what they say, not on the format of the file.
    """

    name: str
    shape: Shape
    digest: str
    lengths: NDArray[np.int64]
    columns: tuple[str, ...]
    left_out: int
    _values: Mapping[str, Sequence[str | None]] = field(repr=False)
    _lines: "SpooledTemporaryFile[bytes]" = field(repr=False)
    _starts: NDArray[np.int64] = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the rows; labels and lengths stay."""
        self._lines.close()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def has_categories(self) -> bool:
        """Whether the rows belong to at least two categories."""
        return len(set(self._values[CATEGORY])) > 1

    def has_field(self, field: str) -> bool:
        """Whether every row has this column, of those that `read_corpus` was told of."""
        return field in self._values and None not in self._values[field]

    def labels(self, field: str = CATEGORY) -> Labels:
        """Return what a column says about every row; raises DataError D042 where it is not there, or not in each row.

        A field that `read_corpus` was not told of is not there.
        """
        values = self._values.get(field, ())
        missing = sum(value is None for value in values)
        if missing == len(values):
            shown = ", ".join(self.columns[:_MOST_NAMED]) + (" …" if len(self.columns) > _MOST_NAMED else "")
            nearest = get_close_matches(field, self.columns, n=1)
            again = f"--by by:{nearest[0]}" if nearest else "--by iid"
            raise self._cannot_tell(f"the rows have no column {field}; there are {shown}", again)
        if missing:
            first = values.index(None) + 1
            raise self._cannot_tell(
                f"{missing:,} of {len(values):,} rows have no {field}; the first of them is row {first:,}"
            )
        return Labels.of(field, [value or "" for value in values])

    def numbers(self, field: str) -> NDArray[np.float64]:
        """Return the numbers in a column, (rows,); raises DataError D042, also where one value is no number."""
        labels = self.labels(field)
        try:
            known = np.array([float(name) for name in labels.names])
        except ValueError:
            known = np.array([np.nan])
        if not np.isfinite(known).all():
            raise self._cannot_tell(f"column {field} holds more than numbers, so rows cannot be ordered by it")
        return known[labels.codes]

    def lines(self, rows: Iterable[int]) -> Iterator[bytes]:
        """Yield these rows as JSON lines with their line ends; columns have our names where `--map` gave them."""
        for row in rows:
            start, end = int(self._starts[row]), int(self._starts[row + 1])
            self._lines.seek(start)
            yield self._lines.read(end - start)

    def records(self, rows: Iterable[int]) -> tuple[Record, ...]:
        """Return these rows as records, whose lines count from 1 over the rows that can be used."""
        numbers = list(rows)
        made = (
            to_record(json.loads(line), self.shape, number + 1)
            for number, line in zip(numbers, self.lines(numbers), strict=True)
        )
        return tuple(record for record in made if isinstance(record, Record))

    def _cannot_tell(self, why: str, again: str = "--by iid") -> DataError:
        return DataError(why, code="D042", where=self.name, fix=f"fedit-client partition DATA {again}", again=again)


def read_corpus(source: Source, fields: Sequence[str] = ()) -> Corpus:
    """Read a source once, row by row; `fields` are the columns besides category that partitions will be made by.

    Raises DataError like `Source.read`, and D047 where files of several shapes come together; StorageError.
    """
    name = source.place if source.is_stdin or source.is_hub else Path(source.place).name
    return _gathered(name, stream_rows(source), fields)


def corpus_of(rows: Iterable[Mapping[str, Any]], fields: Sequence[str] = (), shape: Shape | None = None) -> Corpus:
    """Return the corpus of rows in memory; raises DataError like `read_corpus`."""
    return _gathered("the given rows", stream_given(rows, shape), fields)


def _gathered(name: str, rows: Iterable[StreamedRow | RowProblem], fields: Sequence[str]) -> Corpus:
    digest, columns, shapes = hashlib.sha256(), dict[str, None](), dict[Shape, None]()
    values: dict[str, list[str | None]] = {name: [] for name in (CATEGORY, *fields)}
    known: dict[str | None, str | None] = {}  # one text for all rows that say the same
    starts, lengths, problems = array("q", [0]), array("q"), list[RowProblem]()
    lines = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with the corpus
    try:
        with translating(Path(gettempdir())):
            for item in rows:
                if isinstance(item, RowProblem):
                    problems.append(item)
                    continue
                line = _line(item.row)
                digest.update(line)
                lines.write(line)
                starts.append(starts[-1] + len(line))
                lengths.append(_answered(item.record))
                columns |= dict.fromkeys(map(str, item.row))
                shapes[item.shape] = None
                for field, found in values.items():
                    value = item.record.category if field == CATEGORY else _text(item.row.get(field))
                    found.append(known.setdefault(value, value))
        _check(name, list(shapes), problems)
    except BaseException:
        lines.close()
        raise
    return Corpus(name, next(iter(shapes)), f"sha256:{digest.hexdigest()}", _numbers(lengths),
                  tuple(columns), len(problems), values, lines, _numbers(starts))  # fmt: skip


def _check(name: str, shapes: Sequence[Shape], problems: Sequence[RowProblem]) -> None:
    if len(shapes) > 1:
        raise DataError(f"the files have several shapes ({', '.join(shapes)}), and a client's rows are one file",
                        code="D047", where=name, fix="fedit-client data convert FILE --out NEW_FILE")  # fmt: skip
    if not shapes:
        reason = f"; line {problems[0].line}: {problems[0].reason}" if problems else ""
        raise DataError(f"none of {counted(len(problems), 'row')} can be used{reason}", code="D011", where=name,
                        fix="fedit-client data check FILE")  # fmt: skip


def _line(row: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(row).encode("utf-8", "surrogatepass") + b"\n"


def _numbers(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values, dtype=np.int64).copy()


def _answered(record: Record) -> int:
    return sum(len(message.content) for message in record.messages if message.role is Role.ASSISTANT)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
