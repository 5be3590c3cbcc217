"""Where rows come from: a file, a glob, a folder, stdin, a data set of the hub, or a program's own source."""

import io
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from fedit_client.data.columns import Columns, Place, Wishes
from fedit_client.data.files import ENDINGS, RowBytes, ending_of, numbered_rows, rows_of
from fedit_client.data.hub import hub_rows, is_hub_id
from fedit_client.data.reading import OnError, made_records, records_from
from fedit_client.data.records import RowFile, Shape
from fedit_protocol.errors import DataError
from fedit_protocol.words import counted

STDIN: Final = "-"
_OF_DATASETS: Final = frozenset({"dataset_info.json", "dataset_dict.json", "state.json"})
_MOST_NAMED: Final = 5


@runtime_checkable
class DataSource(Protocol):
    """The seam for rows of a program's own: `rows` is called when training starts, each time anew; nothing is copied.

    A row is a mapping in any of the shapes that files have: `{"messages": […]}`, `{"prompt": …, "completion": …}`.
    """

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Return the rows as they are now; called in a thread of its own."""
        ...


@dataclass(frozen=True)
class Source:
    """One source as its owner named it, and what was said about it; `place` is `-`, a path, a glob or a hub id."""

    place: str
    columns: Columns = field(default_factory=dict)
    shape: Shape | None = None
    on_error: OnError = "stop"

    @property
    def is_stdin(self) -> bool:
        """Whether it can be read only once."""
        return self.place == STDIN

    @property
    def is_hub(self) -> bool:
        """Whether it names a data set of the hub, and nothing on this machine."""
        return not has_magic(self.place) and not _path(self.place).exists() and self._reads_as_hub_id

    @property
    def _reads_as_hub_id(self) -> bool:
        return is_hub_id(self.place) and ending_of(Path(self.place)) is None

    def absolute(self) -> "Source":
        """Return it with a path that means the same from any folder."""
        if self.is_stdin or self.is_hub:
            return self
        return replace(self, place=str(_path(self.place).absolute()))

    def read(self) -> RowFile:
        """Read everything; several files become one RowFile with `parts`.

        Raises DataError like `read_records`; D001 if nothing is there, D003 for a folder without readable files, and
        like `hub_rows`.
        """
        wishes = Wishes(self.columns, self.shape)
        if self.is_stdin:
            return made_records(rows_of(stdin_bytes(self.shape)), Place(STDIN), wishes, self.on_error)
        if self.is_hub:
            notes: list[str] = []
            found = made_records(hub_rows(self.place, notes), Place(self.place), wishes, self.on_error)
            return replace(found, notes=(*notes, *found.notes))
        path = _path(self.place)
        if not path.is_dir() and not has_magic(self.place):
            return made_records(numbered_rows(path), Place(self.place), wishes, self.on_error, path)
        files, left = readable_files(path, self.place)
        parts = [made_records(numbered_rows(file), Place(str(file)), wishes, self.on_error, file) for file in files]
        return _together(parts, path, left)


@dataclass(frozen=True)
class MemorySource:
    """Rows that a program holds; they are looked at again at each reading."""

    held: Iterable[Mapping[str, Any]] = field(repr=False)

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Return the rows."""
        return self.held


def read_source(
    source: DataSource, *, shape: Shape | None = None, columns: Columns | None = None, on_error: OnError = "stop"
) -> RowFile:
    """Return the records of a program's own source; raises DataError like `read_records`."""
    return records_from(source.rows(), shape=shape, columns=columns, on_error=on_error)


def _path(place: str) -> Path:
    return Path(place).expanduser()


def readable_files(path: Path, place: str) -> tuple[list[Path], list[Path]]:
    """Return the files that can be read, sorted, and those that cannot; raises DataError D001, D003."""
    if path.is_dir():
        every = [file for file in path.rglob("*") if not _hidden(file.relative_to(path))]
    else:
        every = [Path(name) for name in glob(str(path), recursive=True)]  # noqa: PTH207 - a pattern may be absolute
    every = sorted(file for file in every if file.is_file() and file.name not in _OF_DATASETS)
    files = [file for file in every if ending_of(file)]
    if not every and not path.is_dir():
        raise DataError(
            "no file has such a name",
            code="D001",
            where=place,
            fix=f"ls {path.parent}; then: fedit-client data check FILE",
        )
    if not files:
        raise DataError(
            "none of the files here can be read",
            code="D003",
            where=place,
            fix=f"save rows as one of {', '.join(ENDINGS)}, then: fedit-client data check",
        )
    return files, [file for file in every if file not in set(files)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _together(parts: list[RowFile], path: Path, left: list[Path]) -> RowFile:
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    shapes = list(dict.fromkeys(part.shape for part in parts))
    if len(shapes) > 1:
        notes.append(f"the files have several shapes: {', '.join(shapes)}")
    if left:
        names = ", ".join(file.name for file in left[:_MOST_NAMED])
        notes.append(f"not read: {counted(len(left), 'other file')}: {names}{' …' if len(left) > _MOST_NAMED else ''}")
    return RowFile(
        records=tuple(record for part in parts for record in part.records),
        shape=shapes[0],
        skipped=tuple(problem for part in parts for problem in part.skipped),
        ignored_columns=tuple(sorted({column for part in parts for column in part.ignored_columns})),
        path=path,
        notes=tuple(notes),
        parts=tuple(parts),
    )


def stdin_bytes(shape: Shape | None) -> RowBytes:
    """Read stdin to its end and return how to read what came: plain text if that is asked for, JSON, else CSV."""
    raw = sys.stdin.buffer.read()
    ending = ".txt" if shape is Shape.TEXT else ".json" if raw.lstrip()[:1] in (b"[", b"{") else ".csv"

    def opened() -> io.BytesIO:
        return io.BytesIO(raw)

    return RowBytes("stdin", ending, opened)
