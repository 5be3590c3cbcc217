"""The rows of one client: sources by name, which a home remembers, and a program's own, which end with it."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedit_client.data import (
    Columns,
    DataSource,
    MemorySource,
    OnError,
    Record,
    RowFile,
    Shape,
    Source,
    read_source,
    records_from,
)
from fedit_client.data.remembered import load_sources, read_here, save_sources
from fedit_client.home.paths import Paths
from fedit_protocol.errors import DataError


class OwnData:
    """What a client trains on. Rows are read when they are asked for; only those of an iterator are kept here."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._named: list[Source] = []
        self._own: list[tuple[DataSource, Columns | None, Shape | None, OnError]] = []
        self._once: list[Record] = []
        self._lives_in_home = False
        self._of_hub: dict[Hashable, tuple[Record, ...]] = {}

    def add_data(self, place: Path | str, columns: Columns | None, shape: Shape | None, on_error: OnError) -> RowFile:
        """Check a source by its name and use its rows; raises DataError."""
        source = Source(str(place), columns or {}, shape, on_error).absolute()
        rows = read_here(self._paths, source)
        if source.is_stdin:
            self._once.extend(rows.records)
        else:
            self._named.append(source)
        return rows

    def add_records(
        self, rows: Iterable[Mapping[str, Any]], columns: Columns | None, shape: Shape | None, on_error: OnError
    ) -> RowFile:
        """Check rows in memory and use them; an iterator is read for good, a collection is looked at again."""
        checked = records_from(rows, columns=columns, shape=shape, on_error=on_error)
        if iter(rows) is rows:
            self._once.extend(checked.records)
        else:
            self.add_source(MemorySource(rows), columns, shape, on_error)
        return checked

    def add_source(self, source: DataSource, columns: Columns | None, shape: Shape | None, on_error: OnError) -> None:
        """Use a program's own source, unread until training starts."""
        self._own.append((source, columns, shape, on_error))

    @property
    def is_there(self) -> bool:
        """Whether anything has been added here or is remembered."""
        return bool(self._named or self._own or self._once or load_sources(self._paths))

    @property
    def places(self) -> tuple[str, ...]:
        """The names of what was added here, or else of what is remembered."""
        return tuple(source.place for source in self._named or load_sources(self._paths))

    def remember(self) -> None:
        """Write down the named sources of this client, or keep those that the home has; raises StorageError."""
        sources = self._named or load_sources(self._paths)
        if sources:
            save_sources(self._paths, sources)
        self._lives_in_home = bool(self._named)

    def records(self) -> tuple[Record, ...]:
        """Read everything as it is now, in memory only; raises DataError, D020 if there is not a single row.

        A data set of the hub is read once: looking again would ask the hub before every round.
        """
        found = list(self._once)
        for own, columns, shape, on_error in self._own:
            found.extend(read_source(own, columns=columns, shape=shape, on_error=on_error).records)
        for source in self._sources(alone=not found):
            found.extend(self._read(source))
        if not found:
            raise DataError("there are no rows to train on", code="D020", fix="fedit-client data add rows.jsonl")
        return tuple(found)

    def _sources(self, *, alone: bool) -> Sequence[Source]:
        """Those named here; once remembered, or where nothing else was given, those of the home, as they are now."""
        if self._lives_in_home or (alone and not self._named):
            return load_sources(self._paths)
        return self._named

    def _read(self, source: Source) -> tuple[Record, ...]:
        if not source.is_hub:
            return source.read().records
        known = (source.place, tuple(source.columns.items()), source.shape, source.on_error)
        if known not in self._of_hub:
            self._of_hub[known] = read_here(self._paths, source).records
        return self._of_hub[known]


class TakesData:
    """What a client offers to give it rows; they never leave the machine and are never copied."""

    _data: OwnData

    def add_data(
        self,
        place: Path | str,
        *,
        columns: Columns | None = None,
        shape: Shape | None = None,
        on_error: OnError = "stop",
    ) -> RowFile:
        """Check a source and use its rows: a file, folder, glob, `-` for stdin, or `org/name[:split]` of the hub.

        `columns` gives our names to the source's columns. `join` remembers the place and what was said about it,
        never the content; stdin is for this process only. Raises DataError.
        """
        return self._data.add_data(place, columns, shape, on_error)

    def add_records(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        columns: Columns | None = None,
        shape: Shape | None = None,
        on_error: OnError = "stop",
    ) -> RowFile:
        """Check rows in memory and use them in this process only. Raises DataError.

        A collection is looked at again when training starts, and never copied; an iterator is read now, for good.
        """
        return self._data.add_records(rows, columns, shape, on_error)

    def add_source(
        self,
        source: DataSource,
        *,
        columns: Columns | None = None,
        shape: Shape | None = None,
        on_error: OnError = "stop",
    ) -> None:
        """Use a source of the program's own in this process; its rows are read when training starts, not before."""
        self._data.add_source(source, columns, shape, on_error)

    @property
    def sources(self) -> tuple[str, ...]:
        """The places that are trained on: added here, or else remembered by this home."""
        return self._data.places

    @property
    def has_data(self) -> bool:
        """Whether there is anything to train on: added here, or remembered by this home."""
        return self._data.is_there
