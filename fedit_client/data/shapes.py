"""Which columns a file has, and what a row of each shape becomes. Pure: rows in, records or problems out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from fedit_client.data.records import Message, Record, Role, RowProblem, Shape

Row = Mapping[str, Any]

REQUIRED: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.MESSAGES: ("messages",),
    Shape.DOLLY: ("instruction", "response"),
    Shape.ALPACA: ("instruction", "output"),
    Shape.PROMPT_COMPLETION: ("prompt", "completion"),
}
_OPTIONAL: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.MESSAGES: (),
    Shape.DOLLY: ("context",),
    Shape.ALPACA: ("input",),
    Shape.PROMPT_COMPLETION: (),
}
WRONG_TYPE: Final = "D007"
EMPTY_TEXT: Final = "D008"
ROLE_ORDER: Final = "D009"
NO_ANSWER_LAST: Final = "D014"
MISSING_COLUMN: Final = "D004"


class UnusableRowError(Exception):
    """One row cannot become a record; internal to this folder, turned into a RowProblem or a DataError."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def fitting_shapes(rows: Sequence[Row]) -> list[Shape]:
    """Return the shapes that fit the most of these rows; empty if none fits any, several if they tie."""
    fits = {shape: sum(_has_columns(row, shape) for row in rows) for shape in Shape}
    best = max(fits.values(), default=0)
    return [shape for shape, count in fits.items() if count == best > 0]


def known_columns(shape: Shape) -> set[str]:
    """Return the columns that this shape reads."""
    return {*REQUIRED[shape], *_OPTIONAL[shape], "category"}


def to_record(row: Row, shape: Shape, line: int) -> Record | RowProblem:
    """Return the record of one row, or why there is none."""
    try:
        missing = [column for column in REQUIRED[shape] if column not in row]
        if missing:
            raise UnusableRowError(MISSING_COLUMN, f"column {missing[0]} is missing")
        category = _text(row, "category", may_be_empty=True)
        messages, context = _READERS[shape](row)
        _check_turns(messages)
    except UnusableRowError as problem:
        return RowProblem(line, problem.code, str(problem))
    return Record(messages, category, line, context)


def _has_columns(row: Row, shape: Shape) -> bool:
    return all(column in row for column in REQUIRED[shape])


def _text(row: Row, column: str, *, may_be_empty: bool = False) -> str:
    value = row.get(column)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise UnusableRowError(WRONG_TYPE, f"{column} is {_kind(value)}, not text")
    if not value.strip() and not may_be_empty:
        raise UnusableRowError(EMPTY_TEXT, f"{column} is empty")
    return value


def _kind(value: object) -> str:
    """Name a type as people who write JSON do; never the value, which is private."""
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _read_messages(row: Row) -> tuple[tuple[Message, ...], str]:
    return tuple(_turns(row["messages"], "messages")), ""


def _read_dolly(row: Row) -> tuple[tuple[Message, ...], str]:
    return _question_and_answer(row, "instruction", "context", "response")


def _read_alpaca(row: Row) -> tuple[tuple[Message, ...], str]:
    return _question_and_answer(row, "instruction", "input", "output")


def _question_and_answer(row: Row, ask: str, extra: str, answer: str) -> tuple[tuple[Message, ...], str]:
    context = _text(row, extra, may_be_empty=True).strip()
    question = _text(row, ask) + (f"\n\n{context}" if context else "")
    return (Message(Role.USER, question), Message(Role.ASSISTANT, _text(row, answer))), context


def _read_prompt_completion(row: Row) -> tuple[tuple[Message, ...], str]:
    halves = (("prompt", Role.USER), ("completion", Role.ASSISTANT))
    turns = [turn for column, role in halves for turn in _half(row, column, role)]
    return tuple(turns), ""


def _half(row: Row, column: str, role: Role) -> Iterable[Message]:
    """A prompt or a completion is text, or a list of messages."""
    if isinstance(row[column], list):
        return _turns(row[column], column)
    return [Message(role, _text(row, column))]


def _turns(value: object, column: str) -> Iterable[Message]:
    if not isinstance(value, list):
        raise UnusableRowError(WRONG_TYPE, f"{column} is {_kind(value)}, not a list of messages")
    return [_turn(turn, f"{column}[{place}]") for place, turn in enumerate(value)]


def _turn(value: object, place: str) -> Message:
    if not isinstance(value, dict):
        raise UnusableRowError(WRONG_TYPE, f"{place} is {_kind(value)}, not an object with role and content")
    role, content = value.get("role"), value.get("content")
    if role not in set(Role):
        raise UnusableRowError(ROLE_ORDER, f"{place} has a role other than system, user, assistant")
    if not isinstance(content, str):
        raise UnusableRowError(WRONG_TYPE, f"{place}.content is {_kind(content)}, not text")
    if not content.strip():
        raise UnusableRowError(EMPTY_TEXT, f"{place}.content is empty")
    return Message(Role(role), content)


def _check_turns(messages: Sequence[Message]) -> None:
    roles = [message.role for message in messages]
    if not roles or roles[-1] is not Role.ASSISTANT:
        raise UnusableRowError(NO_ANSWER_LAST, "the last message is not from the assistant")
    spoken = roles[1:] if roles[0] is Role.SYSTEM else roles
    if not spoken or spoken[0] is not Role.USER or Role.SYSTEM in spoken or any(a is b for a, b in pairwise(spoken)):
        raise UnusableRowError(ROLE_ORDER, "user and assistant do not take turns, the user first")


_READERS: Final[dict[Shape, Callable[[Row], tuple[tuple[Message, ...], str]]]] = {
    Shape.MESSAGES: _read_messages,
    Shape.DOLLY: _read_dolly,
    Shape.ALPACA: _read_alpaca,
    Shape.PROMPT_COMPLETION: _read_prompt_completion,
}
