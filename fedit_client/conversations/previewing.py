"""`data preview`: rows as training sees them, trained tokens marked, and how long all of them are. Nothing leaves."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.text import Text

from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.task_view import TaskView, task_view
from fedit_client.data import Record, RowFile, Source
from fedit_client.data.findings import Lengths, Sized
from fedit_client.data.remembered import load_sources, read_here
from fedit_client.training.preview import Stretch, TokenView, view_tokens
from fedit_protocol.errors import DataError
from fedit_protocol.task import TrainingSpec
from fedit_protocol.words import counted

_BUCKETS: Final = 8
_BAR: Final = 40
_MARKS: Final = {"given": ("", ""), "trained": ("[[", "]]"), "cut": ("{{", "}}")}


def preview(config: ClientConfig, console: Console, sources: Sequence[Source], count: int, model: str | None) -> None:
    """Show `count` rows spread over these sources, or over those of this home, and the lengths of all of them.

    Raises DataError, D020 without any rows; ModelError M001 if the base is not here; and like `view_tokens`.
    """
    sources = sources or load_sources(config.paths)
    if not sources:
        raise DataError("no data was named, and none was added; name a file, a folder or a glob", code="D020",
                        fix="fedit-client data preview FILE", again="FILE")  # fmt: skip
    view = task_view(config, model)
    base = view.require_base()
    files = [file for source in sources for file in read_here(config.paths, source).by_file()]
    rows = [(file, record) for file in files for record in file.records]
    shown = _spread(len(rows), count)
    found = view_tokens([record for _, record in rows], base, view.prompt, shown)
    if console.json:
        console.answer("data preview", _values(rows, shown, found, view), [])
        return
    console.out.print(_legend(console))
    for place, stretches in zip(shown, found.shown, strict=True):
        file, record = rows[place]
        console.out.print(Text(_heading(file, record, found.sizes[place]), style="bold"))
        console.out.print(rendered(console, stretches))
    for line in _summary(console, found, view):
        console.out.print(Text(line))


def rendered(console: Console, stretches: Sequence[Stretch]) -> Text:
    """Return a row as text: trained stretches coloured, underlined without colours, in brackets without a terminal."""
    if console.out.color_system is None:
        return Text("".join(_harmless(stretch.text).join(_MARKS[stretch.kind]) for stretch in stretches))
    styles = _styles(console)
    return Text.assemble(*((_harmless(stretch.text), styles[stretch.kind]) for stretch in stretches))


def tokens_per_round(training: TrainingSpec, rows: int, mean: float) -> int:
    """Return about how many tokens one round trains on here: rows that it takes, times their mean length."""
    kept = max(1, round(rows * (1 - training.held_out_fraction)))
    return round(training.rows_trained(kept) * mean)


def _spread(rows: int, count: int) -> list[int]:
    """Places of rows with equal distances between them, the first one included."""
    count = min(rows, count)
    return [place * rows // count for place in range(count)]


def _legend(console: Console) -> Text:
    if console.out.color_system is None:
        return Text("[[trained on]], {{cut off}}; everything else is only read")
    styles = _styles(console)
    return Text.assemble(("trained on", styles["trained"]), ", ", ("cut off", styles["cut"]), ", only read")


def _styles(console: Console) -> dict[str, str]:
    if console.out.no_color:
        return {"given": "", "trained": "underline", "cut": "strike"}
    return {"given": "", "trained": "bold green", "cut": "red strike"}


def _harmless(text: str) -> str:
    """The text without what would command the terminal: rows of a stranger's data set may hold anything."""
    return "".join(symbol if symbol.isprintable() or symbol in "\n\t" else "�" for symbol in text)


def _heading(file: RowFile, record: Record, size: Sized) -> str:
    name = f"{file.path.name} " if file.path else ""
    return f"── {name}line {record.line} · {size.size:,} tokens, {size.trained:,} of them trained on"


def _summary(console: Console, found: TokenView, view: TaskView) -> list[str]:
    sizes, limit = [row.size for row in found.sizes], view.prompt.cutoff_tokens
    cut, useless = sum(size > limit for size in sizes), sum(row.is_useless for row in found.sizes)
    lines = [f"{counted(len(sizes), 'row')}, {view.words}", *_histogram(console, sizes, limit)]
    if found.refused:
        first = next(iter(found.refused.values()))
        lines.append(f"{counted(len(found.refused), 'row')} would stop a round: {first} (help {first.code})")
    lines.append(
        f"cut at {limit:,} tokens: {counted(cut, 'row')}" if cut else f"no row is longer than {limit:,} tokens"
    )
    if useless:
        lines.append(f"{useless:,} of them {'is' if useless == 1 else 'are'} not used: nothing of the answer is left")
    if view.training:
        lines.append(f"about {_per_round(view.training, sizes, limit):,} tokens a round on this device")
    return [*lines, "nothing left this machine"]


def _per_round(training: TrainingSpec, sizes: Sequence[int], limit: int) -> int:
    kept = [min(size, limit) for size in sizes]
    return tokens_per_round(training, len(kept), sum(kept) / len(kept))


def _counts(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (from, to, rows) for equal steps from 0 to the longest."""
    step = max(1, math.ceil((max(sizes) + 1) / _BUCKETS))
    counts = [0] * _BUCKETS
    for size in sizes:
        counts[size // step] += 1
    return [(place * step, (place + 1) * step - 1, rows) for place, rows in enumerate(counts)]


def _histogram(console: Console, sizes: Sequence[int], limit: int) -> list[str]:
    counts = _counts(sizes)
    most, block = max(rows for *_, rows in counts), "█" if console.can_show("█") else "#"
    lines = []
    for low, high, rows in counts:
        bar = block * math.ceil(rows / most * _BAR)
        mark = "  ← limit" if low <= limit <= high and console.can_show("←") else ""
        lines.append(f"{low:>7,} to {high:>7,}  {rows:>7,}  {bar}{mark}")
    return lines


def _values(
    rows: Sequence[tuple[RowFile, Record]], shown: Sequence[int], found: TokenView, view: TaskView
) -> dict[str, Any]:
    sizes, limit = [row.size for row in found.sizes], view.prompt.cutoff_tokens
    return {
        "rows": len(rows),
        "template": view.prompt.template,
        "train_on_inputs": view.prompt.train_on_inputs,
        "lengths": asdict(Lengths.of(sizes, "tokens", limit)),
        "histogram": [{"from": low, "to": high, "rows": count} for low, high, count in _counts(sizes)],
        "cut": sum(size > limit for size in sizes),
        "refused": len(found.refused),
        "useless": sum(row.is_useless for row in found.sizes),
        "tokens_per_round": _per_round(view.training, sizes, limit) if view.training else None,
        "shown": [
            {
                "file": str(rows[place][0].path or ""),
                "line": rows[place][1].line,
                "stretches": [asdict(stretch) for stretch in stretches],
            }
            for place, stretches in zip(shown, found.shown, strict=True)
        ],
    }
