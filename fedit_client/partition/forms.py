"""The text form of a partition, `dirichlet:0.5:category`: one grammar for every command; errors name the nearest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from fedit_client.partition.corpus import CATEGORY
from fedit_protocol.errors import DataError

MIN_ROWS: Final = "min"


@dataclass(frozen=True)
class Form:
    """One way to deal rows: its `kind`, the one number or law that it takes, and the column that it looks at.

    `min_rows` is the least that a client gets; None leaves it to the kind. `text` is the form as one writes it.
    """

    kind: str
    value: float | str | None = None
    field: str | None = None
    min_rows: int | None = None
    text: str = ""

    @property
    def number(self) -> float:
        """The number that the form takes, 0 where it takes none."""
        return float(self.value) if isinstance(self.value, (int, float)) else 0.0

    @property
    def without_min(self) -> str:
        """The text without what it says about the least rows of a client."""
        return ":".join(part for part in self.text.split(":") if not part.startswith(f"{MIN_ROWS}="))

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns besides category that `read_corpus` has to be told of."""
        return () if self.field in (None, CATEGORY) else (self.field,)


@dataclass(frozen=True)
class Slot:
    """One part of a form: `read` returns its value, or raises ValueError with what belongs there."""

    name: str
    read: Callable[[str], float | str]
    default: float | str | None = None


@dataclass(frozen=True)
class Kind:
    """What may stand behind a form's first word; `example` is one that works, `meaning` a line for the help page."""

    slots: tuple[Slot, ...]
    example: str
    meaning: str
    has_min: bool = False
    counts_clients: bool = False
    """Whether the column's values say how many clients there are where nobody says it."""


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _count(text: str) -> float:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _column(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


LAWS: Final = ("linear", "exponential", "lognormal")


def _law(text: str) -> str:
    if text not in LAWS:
        raise ValueError(text)
    return text


_CATEGORY: Final = Slot("FIELD", _column, CATEGORY)
_ALPHA: Final = Slot("ALPHA", _positive)
KINDS: Final[Mapping[str, Kind]] = {
    "iid": Kind((), "iid", "at random, equal sizes"),
    "dirichlet": Kind(
        (_ALPHA, _CATEGORY), "dirichlet:0.5", "each category in shares drawn from a Dirichlet distribution, so sizes "
        "differ too; the smaller ALPHA, the more unlike the clients", has_min=True,
    ),
    "inner-dirichlet": Kind(
        (_ALPHA, _CATEGORY), "inner-dirichlet:0.5", "equal sizes; each client has a mix of categories of its own"
    ),
    "shards": Kind(
        (Slot("COUNT", _count), _CATEGORY), "shards:2", "sorted by category and cut into equal shards; COUNT a client"
    ),
    "pathological": Kind((Slot("COUNT", _count), _CATEGORY), "pathological:2", "COUNT categories a client"),
    "one-category": Kind((_CATEGORY,), "one-category", "one category a client", counts_clients=True),
    "by": Kind(
        (Slot("FIELD", _column),), "by:language", "the values of a column: some for each client, or some clients for "
        "each", counts_clients=True,
    ),
    "users": Kind(
        (Slot("FIELD", _column),), "users:user_id", "each client is one of the persons in a column, drawn by the seed; "
        "the others stay out", has_min=True, counts_clients=True,
    ),
    "size": Kind((Slot("LAW", _law),), "size:lognormal", f"at random, with sizes that are {', '.join(LAWS)}"),
    "length": Kind((_ALPHA,), "length:0.5", "like dirichlet, by how long the answers are", has_min=True),
    "quality": Kind(
        (Slot("FIELD", _column), Slot("ALPHA", _positive, 0.5)), "quality:score", "like dirichlet, by the numbers in "
        "a column", has_min=True,
    ),
}  # fmt: skip
_OTHER_NAMES: Final = {
    "one-task-per-client": "one-category", "one-task": "one-category", "dir": "dirichlet", "by-language": "by:language",
    "by-user": "users:user_id", "user": "users", "shard": "shards", "length-skew": "length", "quality-skew": "quality",
    "random": "iid", "sizes": "size", "dirichlet-inner": "inner-dirichlet",
}  # fmt: skip


def parse_form(text: str) -> Form:
    """Read a form; raises DataError D040, which names the nearest form that works."""
    name, *parts = text.strip().split(":")
    kind = KINDS.get(name)
    if kind is None:
        raise _unknown(text, name, parts)
    values, minimum = _split_off_min(text, kind, parts)
    if len(values) > len(kind.slots):
        raise _refused(text, f"{name} takes {_shape(name)}", _nearest(name, values))
    given: dict[str, float | str | None] = {slot.name: slot.default for slot in kind.slots}
    for slot, value in zip(kind.slots, values, strict=False):
        try:
            given[slot.name] = slot.read(value)
        except ValueError:
            wanted = {"ALPHA": "a number above 0", "COUNT": "a whole number from 1", "LAW": f"one of {', '.join(LAWS)}",
                      "FIELD": "a column"}[slot.name]  # fmt: skip
            raise _refused(text, f"{slot.name} is {wanted}, not {value!r}", _nearest(name, values)) from None
    lacking = [name for name, value in given.items() if value is None]
    if lacking:
        raise _refused(text, f"{lacking[0]} is missing: {_shape(name)}", _nearest(name, values))
    column = given.pop("FIELD", None)
    number = next(iter(given.values()), None)
    return Form(name, number, None if column is None else str(column), minimum, text.strip())


def form_lines() -> list[str]:
    """Return one line for each form, for people."""
    shapes = {name: _shape(name) for name in KINDS}
    width = max(map(len, shapes.values()))
    return [f"{shapes[name]:<{width}}  {kind.meaning}" for name, kind in KINDS.items()]


def _split_off_min(text: str, kind: Kind, parts: list[str]) -> tuple[list[str], int | None]:
    values = [part for part in parts if not part.startswith(f"{MIN_ROWS}=")]
    found = [part.partition("=")[2] for part in parts if part.startswith(f"{MIN_ROWS}=")]
    if not found:
        return values, None
    if not kind.has_min:
        raise _refused(text, "this form has no min=", ":".join([text.split(":", maxsplit=1)[0], *values]))
    if len(found) > 1 or not found[0].isdecimal() or int(found[0]) < 1:
        raise _refused(text, "min= takes a whole number from 1", f"{kind.example}:{MIN_ROWS}=40")
    return values, int(found[0])


def _nearest(name: str, values: list[str]) -> str:
    """The form with those of its values that can be read, and the example's for the others."""
    kind = KINDS[name]
    example = kind.example.split(":")[1:]
    kept = []
    for place, slot in enumerate(kind.slots):
        given = values[place] if place < len(values) else None
        try:
            slot.read(given if given is not None else "")
        except ValueError:
            if slot.default is not None:
                break
            given = example[place]
        kept.append(str(given))
    return ":".join([name, *kept])


def _unknown(text: str, name: str, parts: list[str]) -> DataError:
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    found = _OTHER_NAMES.get(plain, plain)
    if found.split(":", maxsplit=1)[0] not in KINDS:
        close = get_close_matches(plain, [*KINDS, *_OTHER_NAMES], n=1, cutoff=0.5)
        found = _OTHER_NAMES.get(close[0], close[0]) if close else "iid"
    nearest = found if ":" in found else _nearest(found, [part for part in parts if "=" not in part])
    return _refused(text, f"there is no form {name!r}", nearest)


def _refused(text: str, why: str, nearest: str) -> DataError:
    return DataError(f"cannot deal rows by {text!r}: {why}", code="D040", where=text,
                     fix=f"fedit-client partition DATA --by {nearest}", again=f"--by {nearest}")  # fmt: skip


def _shape(name: str) -> str:
    slots = [f":{slot.name}" if slot.default is None else f"[:{slot.name}]" for slot in KINDS[name].slots]
    return name + "".join(slots)
