"""What is wrong or doubtful about rows. Pure but for the finders that it is given; it changes and drops nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedit_client.data.records import Record, RowFile
from fedit_client.data.sensitive import FindAll, keys_in
from fedit_protocol.errors import DataError

DUPLICATE: Final = "D030"
NEAR_DUPLICATE: Final = "D031"
LONG: Final = "D032"
KEY: Final = "D033"
PERSON: Final = "D034"
ANSWER_CUT: Final = "D035"
REFUSED: Final = "refused"

_WHAT: Final = {
    DUPLICATE: "the same as an earlier row",
    NEAR_DUPLICATE: "the same as an earlier row but for case and blanks",
    LONG: "longer than the limit, the end is cut off",
    KEY: "a key or a password, as it seems",
    PERSON: "personal data, as it seems",
    REFUSED: "not taken by the task's template: a round would stop here",
    ANSWER_CUT: "nothing of the answer is within the limit: not used",
}


@dataclass(frozen=True)
class Place:
    """Where a row stands, and what was found there; never its words."""

    file: str
    line: int
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """One kind of finding with every row that it is about; `code` has a page: `fedit-client help CODE`."""

    code: str
    what: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Lengths:
    """How long rows are, in `unit`; `limit` is where they are cut, in the same unit."""

    unit: str
    limit: int
    shortest: int
    median: int
    nine_in_ten: int
    longest: int

    @classmethod
    def of(cls, sizes: Sequence[int], unit: str, limit: int) -> "Lengths":
        """Return the figures of these sizes, at least one."""
        ordered = sorted(sizes)
        last = len(ordered) - 1
        return cls(unit, limit, ordered[0], ordered[last // 2], ordered[round(last * 0.9)], ordered[last])


@dataclass(frozen=True)
class Sized:
    """One row's length, how much of it is trained on, and whether the limit takes all of that."""

    size: int
    trained: int
    is_useless: bool = False


@dataclass
class Inspection:
    """Everything that was found in some files."""

    findings: list[Finding] = field(default_factory=list)

    def add(self, code: str, what: str, places: Iterable[Place]) -> None:
        """Note a finding, unless it is about no row."""
        noted = tuple(places)
        if noted:
            self.findings.append(Finding(code, what, noted))


def inspect(files: Sequence[RowFile], find_keys: FindAll, find_persons: FindAll | None) -> Inspection:
    """Look at every row of these files: unusable ones by their code, duplicates, keys, persons where that can be."""
    found = Inspection()
    for code, what, places in _unusable(files):
        found.add(code, what, places)
    exact, near = _duplicates(files)
    found.add(DUPLICATE, _WHAT[DUPLICATE], exact)
    found.add(NEAR_DUPLICATE, _WHAT[NEAR_DUPLICATE], near)
    found.add(KEY, _WHAT[KEY], _holding(files, find_keys))
    if find_persons:
        found.add(PERSON, _WHAT[PERSON], _holding(files, find_persons))
    return found


def first_look(files: Sequence[RowFile]) -> list[Finding]:
    """Return what can be seen at once, while data is added: rows that repeat, and keys."""
    seen = (DUPLICATE, NEAR_DUPLICATE, KEY)
    return [finding for finding in inspect(files, keys_in, None).findings if finding.code in seen]


def inspect_lengths(found: Inspection, files: Sequence[RowFile], sizes: Sequence[Sized], limit: int) -> None:
    """Note the rows that are cut, and those that are cut to uselessness; `sizes` are those of all records in turn."""
    rows = list(zip(_located(files), sizes, strict=True))
    found.add(
        LONG,
        _WHAT[LONG],
        (Place(file, record.line, f"{size.size:,}") for (file, record), size in rows if size.size > limit),
    )
    found.add(
        ANSWER_CUT,
        _WHAT[ANSWER_CUT],
        (Place(file, record.line) for (file, record), size in rows if size.is_useless),
    )


def inspect_refused(found: Inspection, files: Sequence[RowFile], refused: Mapping[int, DataError]) -> None:
    """Note the rows that the template does not take, by their places among all records; they stop a round."""
    records = list(_located(files))
    places: dict[str, list[Place]] = {}
    for at, error in refused.items():
        name, record = records[at]
        places.setdefault(error.code, []).append(Place(name, record.line, str(error)))
    for code, rows in sorted(places.items()):
        found.add(code, _WHAT[REFUSED], rows)


def text_of(record: Record) -> str:
    """Return all words of a record."""
    return "\n".join(message.content for message in record.messages)


def _name(file: RowFile) -> str:
    return str(file.path) if file.path else ""


def _located(files: Iterable[RowFile]) -> Iterator[tuple[str, Record]]:
    for file in files:
        for record in file.records:
            yield _name(file), record


def _unusable(files: Sequence[RowFile]) -> Iterator[tuple[str, str, list[Place]]]:
    """Group the rows that cannot be used by code; where the reasons differ, each place tells its own."""
    places: dict[str, list[Place]] = {}
    for file in files:
        for problem in file.skipped:
            places.setdefault(problem.code, []).append(Place(_name(file), problem.line, problem.reason))
    for code, found in sorted(places.items()):
        reasons = Counter(place.detail for place in found)
        often = reasons.most_common(1)[0][0]
        yield code, often if len(reasons) == 1 else f"{often}, and other reasons", found


def _duplicates(files: Sequence[RowFile]) -> tuple[list[Place], list[Place]]:
    exact: list[Place] = []
    near: list[Place] = []
    first: dict[tuple[str, ...], str] = {}
    first_alike: dict[tuple[str, ...], str] = {}
    for name, record in _located(files):
        words = tuple(message.content for message in record.messages)
        alike = tuple(" ".join(text.casefold().split()) for text in words)
        here = f"{name} line {record.line}".strip()
        if words in first:
            exact.append(Place(name, record.line, f"like {first[words]}"))
        elif alike in first_alike:
            near.append(Place(name, record.line, f"like {first_alike[alike]}"))
        first.setdefault(words, here)
        first_alike.setdefault(alike, here)
    return exact, near


def _holding(files: Sequence[RowFile], find: FindAll) -> Iterator[Place]:
    rows = list(_located(files))
    for (name, record), kinds in zip(rows, find(text_of(record) for _, record in rows), strict=True):
        if kinds:
            yield Place(name, record.line, ", ".join(sorted(kinds)))
