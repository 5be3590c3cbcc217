"""`data check`: what is wrong or doubtful in the rows, before anything is trained on them. It never blocks."""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.joining import describe_rows
from fedit_client.conversations.task_view import TaskView, task_view
from fedit_client.data import RowFile, Source
from fedit_client.data.findings import (
    Finding,
    Inspection,
    Lengths,
    Place,
    Sized,
    inspect,
    inspect_lengths,
    inspect_refused,
    text_of,
)
from fedit_client.data.remembered import load_sources, read_here
from fedit_client.data.sensitive import can_find_persons, keys_in, persons_in
from fedit_client.training.preview import view_tokens
from fedit_protocol.errors import ConfigError, DataError

_LINES_NAMED: Final = 5
_PLACES_IN_JSON: Final = 20
_MANY: Final = 2000
_CHARACTERS_PER_TOKEN: Final = 4
_UNUSED: Final = "left out by --on-error skip; without it they stop a join"


def check_sources(config: ClientConfig, console: Console, sources: Sequence[Source], show: str | None) -> None:
    """Print what was found in these sources, or in those of this home; with `show`, every line of one finding.

    Raises DataError if a source as a whole cannot be read, D020 without any, and ConfigError U012 for a `show` that
    was not found."""
    sources = sources or [_skipping(source) for source in load_sources(config.paths)]
    if not sources:
        raise DataError("no data was named, and none was added; name a file, a folder or a glob", code="D020",
                        fix="fedit-client data check FILE", again="FILE")  # fmt: skip
    read = [(source, read_here(config.paths, source)) for source in sources]
    files = [file for _, rows in read for file in rows.by_file()]
    persons = can_find_persons()
    found = inspect(files, keys_in, persons_in if persons else None)
    lengths, how = _lengths(config, console, found, files)
    shown = [_named(found, show)] if show else found.findings
    not_looked_for = [] if persons else ["personal data"]
    result = {
        "sources": [_source_values(source, rows) for source, rows in read],
        "rows": sum(len(file.records) for file in files),
        "skipped": sum(len(file.skipped) for file in files),
        "findings": [_finding_values(finding, everything=bool(show)) for finding in shown],
        "lengths": asdict(lengths),
        "lengths_are": how,
        "not_looked_for": not_looked_for,
    }
    if show:
        console.answer("data check", result, _all_places(shown[0]))
        return
    console.answer("data check", result, [*_lines(read), *_finding_lines(found, sources), _length_line(lengths, how),
                                          *_closing(found, files, persons=persons)])  # fmt: skip


def _skipping(source: Source) -> Source:
    """A source that was added, read past rows that cannot be used: they are what is looked for."""
    return Source(source.place, source.columns, source.shape, "skip")


def _lengths(
    config: ClientConfig, console: Console, found: Inspection, files: Sequence[RowFile]
) -> tuple[Lengths, str]:
    """Measure in tokens where the joined task's base is here, else in characters; say which, and why."""
    records = [record for file in files for record in file.records]
    view = task_view(config)
    limit = view.prompt.cutoff_tokens
    if view.training is not None and view.base is not None and importlib.util.find_spec("transformers"):
        if len(records) > _MANY:
            console.say(f"counting the tokens of {len(records):,} rows …", style="dim")
        tokens = view_tokens(records, view.base, view.prompt)
        sizes = list(tokens.sizes)
        inspect_refused(found, files, tokens.refused)
        inspect_lengths(found, files, sizes, limit)
        return Lengths.of([row.size for row in sizes], "tokens", limit), view.words
    sizes = [Sized(len(text_of(record)), 0) for record in records]
    inspect_lengths(found, files, sizes, limit * _CHARACTERS_PER_TOKEN)
    how = f"by characters, {_CHARACTERS_PER_TOKEN} to a token{_why_not_tokens(view)}; {view.words}"
    return Lengths.of([row.size for row in sizes], "characters", limit * _CHARACTERS_PER_TOKEN), how


def _why_not_tokens(view: TaskView) -> str:
    if view.training is None:
        return ""  # the words of the view say it
    return ", as fedit[train] is not installed" if view.base else ", as the task's base is not here"


def _named(found: Inspection, show: str) -> Finding:
    wanted = show.strip().upper().removeprefix("FEDIT-")
    for finding in found.findings:
        if finding.code == wanted:
            return finding
    codes = ", ".join(finding.code for finding in found.findings) or "nothing"
    raise ConfigError(
        f"{wanted} was not found in these rows; found: {codes}", code="U012", fix="fedit-client data check"
    )


def _source_values(source: Source, rows: RowFile) -> dict[str, Any]:
    return {
        "place": source.place,
        "rows": len(rows.records),
        "shape": rows.shape.value,
        "files": [str(file.path) for file in rows.by_file() if file.path],
        "categories": {name or "none": len(records) for name, records in rows.by_category().items()},
        "ignored_columns": list(rows.ignored_columns),
        "skipped": len(rows.skipped),
        "notes": list(rows.notes),
    }


def _finding_values(finding: Finding, *, everything: bool) -> dict[str, Any]:
    places = finding.places if everything else finding.places[:_PLACES_IN_JSON]
    return {
        "code": finding.code,
        "what": finding.what,
        "count": len(finding.places),
        "places": [asdict(place) for place in places],
    }


def _lines(read: Sequence[tuple[Source, RowFile]]) -> list[str]:
    lines: list[str] = []
    for source, rows in read:
        lines.append(f"{source.place}: {describe_rows(rows)}")
        lines += [f"  {note}" for note in rows.notes]
        groups = rows.by_category().items()
        lines += [f"  {name:<24} {len(records):>6,}" for name, records in groups if name]
    return lines


def _finding_lines(found: Inspection, sources: Sequence[Source]) -> list[str]:
    """One line a finding: how many, what, and the first places."""
    if not found.findings:
        return ["nothing is wrong or doubtful"]
    where = " ".join(source.place for source in sources)
    lines = []
    for finding in found.findings:
        first = ", ".join(str(place.line) for place in finding.places[:_LINES_NAMED])
        more = " …" if len(finding.places) > _LINES_NAMED else ""
        count = len(finding.places)
        lines.append(f"{finding.code}  {count:>6,} row{' ' if count == 1 else 's'}  {finding.what}")
        lines.append(f"      lines {first}{more}   fedit-client data check {where} --show {finding.code}")
    return lines


def _all_places(finding: Finding) -> list[str]:
    return [f"{finding.code}: {finding.what}", *(_place_line(place) for place in finding.places)]


def _place_line(place: Place) -> str:
    file = f"{place.file} " if place.file else ""
    return f"{file}line {place.line}{f': {place.detail}' if place.detail else ''}"


def _length_line(lengths: Lengths, how: str) -> str:
    return (
        f"lengths: half of the rows have at most {lengths.median:,} {lengths.unit}, nine in ten "
        f"{lengths.nine_in_ten:,}, the longest {lengths.longest:,} ({how})"
    )


def _closing(found: Inspection, files: Sequence[RowFile], *, persons: bool) -> list[str]:
    skipped = sum(len(file.skipped) for file in files)
    lines = [f"{skipped:,} of all rows cannot be used: {_UNUSED}"] if skipped else []
    if not persons:
        lines.append('personal data was not looked for, which needs: pip install "fedit[check]"')
    if found.findings:
        lines.append("these are warnings: nothing was changed or left out")
    return [*lines, "nothing left this machine"]
