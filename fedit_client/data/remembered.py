"""The sources that this device trains on, by name and never by content: one JSON file, replaced in one step."""

from collections.abc import Iterable
from shlex import quote
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_client.data import RowFile, Shape, Source
from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_client.records.contacts import note_hub
from fedit_protocol.errors import DataError, StorageError


class _Entry(BaseModel):
    """One source as it is written down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str
    columns: dict[str, str] = Field(default_factory=dict)
    shape: Shape | None = None
    on_error: Literal["stop", "skip"] = "stop"


class _File(BaseModel):
    """`sources.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    sources: tuple[_Entry, ...] = ()


def load_sources(paths: Paths) -> tuple[Source, ...]:
    """Return what is remembered; a home of an earlier version names its files in the membership.

    Raises StorageError S013 for a file that is not ours."""
    with translating(paths.sources_file):
        if not paths.sources_file.exists():
            return _of_membership(paths)
        raw = paths.sources_file.read_bytes()
    try:
        found = _File.model_validate_json(raw)
    except ValidationError as error:
        raise StorageError(
            "the list of data sources cannot be read",
            code="S013",
            where=str(paths.sources_file),
            fix=f"rm {quote(str(paths.sources_file))}; then: fedit-client data add FILE",
        ) from error
    return tuple(Source(entry.place, entry.columns, entry.shape, entry.on_error) for entry in found.sources)


def save_sources(paths: Paths, sources: Iterable[Source]) -> None:
    """Remember exactly these sources; stdin cannot be read again, so it is left out. Raises StorageError."""
    entries = tuple(
        _Entry(place=source.place, columns=dict(source.columns), shape=source.shape, on_error=source.on_error)
        for source in sources
        if not source.is_stdin
    )
    write_atomic(paths.sources_file, _File(sources=entries).model_dump_json(indent=2).encode() + b"\n")


def add_source(paths: Paths, source: Source) -> tuple[Source, ...]:
    """Remember one more source, or what is now said about one that is known; return all. Raises StorageError."""
    added = source.absolute()
    sources = (*(known for known in load_sources(paths) if known.place != added.place), added)
    save_sources(paths, sources)
    return sources


def read_here(paths: Paths, source: Source) -> RowFile:
    """Read a source, and note it where that asks the hub (`explain network`); raises DataError, StorageError."""
    if source.is_hub:
        note_hub(paths.cache)
    return source.read()


def remove_source(paths: Paths, place: str) -> tuple[Source, ...]:
    """Forget one source and return the others; its file stays as it is. Raises DataError D022 if it is not known."""
    known = load_sources(paths)
    gone = {place, Source(place).absolute().place}
    left = tuple(source for source in known if source.place not in gone)
    if len(left) == len(known):
        raise DataError(f"{place} is not among this device's data", code="D022", fix="fedit-client data list")
    save_sources(paths, left)
    return left


def _of_membership(paths: Paths) -> tuple[Source, ...]:
    membership = load_membership(paths.membership_file)
    if membership is None:
        return ()
    return tuple(Source(place, on_error=membership.on_error) for place in membership.data)
