"""Which shape a source's columns have, by its first rows; what fits twice or not at all is asked, never guessed."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product
from typing import Final, TypedDict

from fedit_client.data.records import Shape
from fedit_client.data.shapes import ANSWERS, QUESTIONS, REQUIRED, Row, fits, known_columns
from fedit_protocol.errors import DataError

Columns = Mapping[str, str]
"""Our name of a column → the file's: `--map response=answer_long`."""

_MOST_LINES: Final = 4
_ASKS: Final = frozenset({"question", "query", "prompt", "instruction", "input", "user", "ask"})
_ANSWERS: Final = frozenset({"answer", "response", "output", "completion", "reply", "assistant"})


@dataclass(frozen=True)
class Wishes:
    """What the owner said about a source's columns: `--map`, and `--as` for a shape."""

    columns: Columns = field(default_factory=dict)
    shape: Shape | None = None

    def __post_init__(self) -> None:
        """Refuse names that no shape has (D017)."""
        ours = {column for shape in Shape for column in known_columns(shape)}
        unknown = sorted(set(self.columns) - ours)
        if unknown:
            raise DataError(
                f"{unknown[0]} is no column that FedIT reads; those are {', '.join(sorted(ours))}",
                code="D017",
                fix="fedit-client data add FILE --map prompt=question --map response=answer",
                again="--map prompt=question --map response=answer",
            )


@dataclass(frozen=True)
class Place:
    """How a person named the source, for sentences and for commands that can be pasted."""

    text: str
    in_memory: bool = False

    def line(self, columns: Columns) -> str:
        """Return the one command that reads this source with these columns."""
        if self.in_memory:
            return f"pass columns={dict(columns)!r}"
        return f"{self._add} {maps_of(columns)}"

    @property
    def skip_line(self) -> str:
        """Return the one command that leaves out what cannot be used."""
        if self.in_memory:
            return 'correct these rows, or pass on_error="skip"'
        return f"{self._add} --on-error skip"

    @property
    def check_line(self) -> str:
        """Return the one command that looks at everything."""
        return "correct these rows" if self.in_memory else f"fedit-client data check {shlex.quote(self.text)}"

    def correct_line(self, code: str) -> str:
        """Return what helps where nothing would be left: to see what such a row has to look like."""
        return "correct these rows" if self.in_memory else f"fedit-client help {code}"

    @property
    def _add(self) -> str:
        return f"fedit-client data add {shlex.quote(self.text)}"

    def show_hint(self, code: str) -> str:
        """Return where every line of one kind is listed, in parentheses."""
        return "" if self.in_memory else f"   ({self.check_line} --show {code})"

    def shape_line(self, shape: Shape) -> str:
        """Return the one command that reads this source as this shape."""
        if self.in_memory:
            return f"pass shape=Shape.{shape.name}"
        return f"{self._add} --as {shape}"


def maps_of(columns: Columns) -> str:
    """Return the options that say these columns on a command line."""
    return " ".join(f"--map {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in columns.items())


def renamed(row: Row, columns: Columns) -> Row:
    """Return the row with our names for the mapped columns, which the file's own names give up."""
    if not columns:
        return row
    replaced = {*columns, *columns.values()}
    for side in (QUESTIONS, ANSWERS):
        if set(side) & set(columns):  # who says which column is the answer says which ones are not
            replaced.update(side)
    left = {name: value for name, value in row.items() if name not in replaced}
    return {**left, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}


def decide_shape(rows: Sequence[Row], wishes: Wishes, place: Place) -> Shape:
    """Return the shape of these rows, which carry the owner's names already.

    Raises DataError D004 (no shape fits), D006 (several fit equally, or several columns could be meant), D018 (plain
    text, which trains on every token: only where it is asked for).
    """
    if wishes.shape:
        return wishes.shape
    mapped = set(wishes.columns) - {"category"}
    possible = [shape for shape in Shape if mapped <= known_columns(shape)]
    counts = {shape: sum(fits(row, shape) for row in rows) for shape in possible if shape is not Shape.TEXT}
    best = max(counts.values(), default=0)
    found = [shape for shape, count in counts.items() if count == best > 0]
    if len(found) == 1:
        return found[0]
    if found:
        raise _several_shapes(found, rows, place)
    if Shape.TEXT in possible and any(fits(row, Shape.TEXT) for row in rows):
        if "text" in wishes.columns:
            return Shape.TEXT
        raise DataError(
            "these rows are plain text: all of it would be trained on, questions and names included",
            code="D018",
            where=place.text,
            fix=place.shape_line(Shape.TEXT),
            again=f"--as {Shape.TEXT}",
        )
    raise _no_shape(rows, wishes, place)


def check_columns(rows: Sequence[Row], columns: Columns, place: Place) -> None:
    """Raise DataError D004 for a mapped column that none of these rows has."""
    for ours, theirs in columns.items():
        if not any(theirs in row for row in rows):
            meant = {**columns, ours: _nearest(theirs, _names(rows))}
            raise DataError(
                f"there is no column {theirs}; found {_listed(rows)}",
                code="D004",
                where=place.text,
                fix=place.line(meant),
                again=maps_of(meant),
            )


def _nearest(name: str, names: Sequence[str]) -> str:
    return next(iter(get_close_matches(name, names, n=1, cutoff=0.0)), "COLUMN")


def _several_shapes(found: Sequence[Shape], rows: Sequence[Row], place: Place) -> DataError:
    present = {str(column) for row in rows for column in row}
    sets = " and ".join(f"{shape} ({', '.join(_own_columns(shape, present))})" for shape in found)
    choices = [{column: column for column in _own_columns(shape, present)} for shape in found]
    return DataError(
        f"the columns fit two shapes equally: {sets}", code="D006", where=place.text, **_paste(place, choices)
    )


class _Fixes(TypedDict):
    fix: str
    again: str


def _paste(place: Place, choices: Sequence[Columns]) -> _Fixes:
    """The commands that read a source in each of these ways."""
    first = choices[:_MOST_LINES]
    return {"fix": "\n".join(place.line(one) for one in first), "again": "\n".join(maps_of(one) for one in first)}


def _own_columns(shape: Shape, present: set[str]) -> list[str]:
    if shape is not Shape.QUESTION_ANSWER:
        return list(REQUIRED[shape])
    return [name for name in (*QUESTIONS, *ANSWERS) if name in present]


def _no_shape(rows: Sequence[Row], wishes: Wishes, place: Place) -> DataError:
    """Name the columns that might be meant, each pair of them as a line to paste."""
    texts = [name for name in _names(rows) if any(isinstance(row.get(name), str) for row in rows)]
    asks, answers = _likely(texts, _ASKS), _likely(texts, _ANSWERS)
    asks = [name for name in asks if name not in answers] or asks
    kept = {ours: theirs for ours, theirs in wishes.columns.items() if ours not in ("prompt", "response")}
    pairs = [(ask, answer) for ask, answer in product(asks, answers) if ask != answer]
    choices = [{**kept, "prompt": ask, "response": answer} for ask, answer in pairs]
    if len(choices) > 1:
        kind, several = ("answer", answers) if len(answers) > 1 else ("question", asks)
        return DataError(
            f"{len(several)} columns could be the {kind}: {', '.join(several)}",
            code="D006",
            where=place.text,
            **_paste(place, choices),
        )
    wanted = " | ".join(", ".join(columns) for columns in REQUIRED.values())
    example = choices[:1] or [{"prompt": "QUESTION", "response": "ANSWER"}]
    return DataError(
        f"no known set of columns: found {_listed(rows)}; known are {wanted}",
        code="D004",
        where=place.text,
        **_paste(place, example),
    )


def _likely(names: Iterable[str], words: frozenset[str]) -> list[str]:
    return [name for name in names if words & {part.rstrip("s") for part in re.split(r"[^a-z]+", name.lower())}]


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def _listed(rows: Sequence[Row]) -> str:
    return ", ".join(sorted(_names(rows))) or "none"
