"""`data add`, `data list`, `data convert`: the sources of a home, in words. Rows are read where they lie."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from fedit_client.console import Console
from fedit_client.conversations.joining import describe_rows, tell_rows
from fedit_client.data import Record, Source
from fedit_client.data.remembered import add_source, load_sources, read_here
from fedit_client.home.durable import translating
from fedit_client.home.paths import Paths, free_name
from fedit_protocol.errors import ConfigError, DataError


def add_to_home(paths: Paths, console: Console, source: Source) -> None:
    """Check a source and remember it; raises DataError, and ConfigError U001 for stdin: it cannot be read again."""
    if source.is_stdin:
        raise ConfigError(
            "rows from stdin cannot be read again later",
            code="U001",
            fix="save them: fedit-client data add rows.jsonl",
        )
    rows = read_here(paths, source)
    tell_rows(console, source.place, rows)
    for problem in rows.skipped:
        console.say(f"  line {problem.line} is left out: {problem.reason} ({problem.code})")
    sources = add_source(paths, source)
    result = {
        "added": source.absolute().place,
        "rows": len(rows.records),
        "shape": rows.shape.value,
        "skipped": len(rows.skipped),
        "notes": list(rows.notes),
        "sources": [known.place for known in sources],
    }
    closer = f"used from the next round on; look closer: fedit-client data check {source.place}"
    console.answer("data add", result, [closer])


def list_home(paths: Paths, console: Console) -> None:
    """Show every remembered source with what was said about it; the sources are not read."""
    sources = load_sources(paths)
    lines = [line for source in sources for line in _lines(source)]
    console.answer("data list", {"sources": [_values(source) for source in sources]},
                   lines or ["no data was added yet: fedit-client data add rows.jsonl"])  # fmt: skip


def convert_source(paths: Paths, console: Console, source: Source, to: str, out: Path | None) -> None:
    """Write a source's records as JSON lines of messages to a new file or to stdout.

    Raises DataError, D025 for plain text, which has no messages; ConfigError U001 for a file that exists already, and
    for JSON on the same stdout; StorageError.
    """
    if out is None and console.json:
        raise ConfigError("rows and the JSON answer cannot share stdout", code="U001",
                          fix="fedit-client data convert FILE --out converted.jsonl",
                          again="--out converted.jsonl")  # fmt: skip
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists already, and nothing is overwritten", code="U001",
                          fix="fedit-client data convert FILE --out NEW_FILE",
                          again=f"--out {quote(str(free_name(out)))}")  # fmt: skip
    rows = read_here(paths, source)
    if any(record.is_text for record in rows.records):
        raise DataError("plain text has no messages to convert into", code="D025", where=source.place,
                        fix=f"fedit-client data check {quote(source.place)} --as text")  # fmt: skip
    lines = _json_lines(rows.records)
    if out is None:
        sys.stdout.writelines(lines)
        return
    with translating(out), out.open("x", encoding="utf-8") as file:
        file.writelines(lines)
    skipped = [f"  left out: line {problem.line}, {problem.reason}" for problem in rows.skipped]
    console.answer(
        "data convert",
        {"to": to, "out": str(out), "rows": len(rows.records), "skipped": len(rows.skipped)},
        [f"{out}: {describe_rows(rows)} → messages", *skipped],
    )


def _json_lines(records: tuple[Record, ...]) -> Iterator[str]:
    for record in records:
        turns = [{"role": message.role.value, "content": message.content} for message in record.messages]
        row = {"messages": turns, **({"category": record.category} if record.category else {})}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _values(source: Source) -> dict[str, Any]:
    return {
        "place": source.place,
        "columns": dict(source.columns),
        "shape": source.shape,
        "on_error": source.on_error,
    }


def _lines(source: Source) -> Iterator[str]:
    said = [f"{ours} is column {theirs}" for ours, theirs in source.columns.items()]
    said += [f"read as {source.shape}"] if source.shape else []
    said += ["rows that cannot be used are left out"] if source.on_error == "skip" else []
    missing = (
        ""
        if source.is_hub or any(mark in source.place for mark in "*?[") or Path(source.place).exists()
        else ("  (not there now)")
    )
    yield f"{source.place}{missing}"
    yield from (f"  {text}" for text in said)
