"""What a row of each shape becomes. Pure: rows in, records or problems out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from fedit_client.data.records import Message, Record, Role, RowProblem, Shape

Row = Mapping[str, Any]
Turns = tuple[tuple[Message, ...], str]
"""The messages of a row, and its context where a column of its own held one."""

QUESTIONS: Final = ("question", "query", "prompt")
ANSWERS: Final = ("answer", "response")
REQUIRED: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.MESSAGES: ("messages",),
    Shape.SHAREGPT: ("conversations",),
    Shape.DOLLY: ("instruction", "response"),
    Shape.ALPACA: ("instruction", "output"),
    Shape.PROMPT_COMPLETION: ("prompt", "completion"),
    Shape.PREFERENCE: ("chosen", "rejected"),
    Shape.QUESTION_ANSWER: ("question", "answer"),
    Shape.TEXT: ("text",),
}
_OPTIONAL: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.DOLLY: ("context",),
    Shape.ALPACA: ("input",),
    Shape.PREFERENCE: ("prompt",),
    Shape.QUESTION_ANSWER: (*QUESTIONS[1:], *ANSWERS[1:]),
}
_ROLES: Final = {
    **{role.value: role for role in Role},
    "human": Role.USER,
    **dict.fromkeys(("gpt", "chatgpt", "model"), Role.ASSISTANT),
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


def fits(row: Row, shape: Shape) -> bool:
    """Say whether a row has the columns of a shape; a table of questions and answers has exactly one of each."""
    if shape is Shape.QUESTION_ANSWER:
        return sum(name in row for name in QUESTIONS) == sum(name in row for name in ANSWERS) == 1
    return all(column in row for column in REQUIRED[shape])


def known_columns(shape: Shape) -> set[str]:
    """Return the columns that this shape reads."""
    return {*REQUIRED[shape], *_OPTIONAL.get(shape, ()), "category"}


def to_record(row: Row, shape: Shape, line: int) -> Record | RowProblem:
    """Return the record of one row, or why there is none."""
    try:
        category = _text(row, "category", may_be_empty=True)
        messages, context = _READERS[shape](row)
        if shape is not Shape.TEXT:
            _check_turns(messages)
    except UnusableRowError as problem:
        return RowProblem(line, problem.code, str(problem))
    return Record(messages, category, line, context)


def _value(row: Row, column: str) -> Any:
    if column not in row:
        raise UnusableRowError(MISSING_COLUMN, f"column {column} is missing")
    return row[column]


def _text(row: Row, column: str, *, may_be_empty: bool = False) -> str:
    value = row.get(column) if may_be_empty else _value(row, column)
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


def _read_messages(row: Row) -> Turns:
    return tuple(_turns(_value(row, "messages"), "messages")), ""


def _read_sharegpt(row: Row) -> Turns:
    return tuple(_turns(_value(row, "conversations"), "conversations")), ""


def _read_dolly(row: Row) -> Turns:
    return _asked_with_context(row, "instruction", "context", "response")


def _read_alpaca(row: Row) -> Turns:
    return _asked_with_context(row, "instruction", "input", "output")


def _asked_with_context(row: Row, ask: str, extra: str, answer: str) -> Turns:
    context = _text(row, extra, may_be_empty=True).strip()
    question = _text(row, ask) + (f"\n\n{context}" if context else "")
    return (Message(Role.USER, question), Message(Role.ASSISTANT, _text(row, answer))), context


def _read_prompt_completion(row: Row) -> Turns:
    return (*_half(row, "prompt", Role.USER), *_half(row, "completion", Role.ASSISTANT)), ""


def _read_preference(row: Row) -> Turns:
    """The chosen answer only. Some sets repeat the question inside of it, as a list of messages."""
    chosen = tuple(_half(row, "chosen", Role.ASSISTANT))
    holds_question = isinstance(row["chosen"], list) and chosen[:1] and chosen[0].role is not Role.ASSISTANT
    return chosen if holds_question else (*_half(row, "prompt", Role.USER), *chosen), ""


def _read_question_answer(row: Row) -> Turns:
    ask = next((name for name in QUESTIONS if name in row), QUESTIONS[0])
    answer = next((name for name in ANSWERS if name in row), ANSWERS[0])
    return (*_half(row, ask, Role.USER), *_half(row, answer, Role.ASSISTANT)), ""


def _read_text(row: Row) -> Turns:
    return (Message(Role.ASSISTANT, _text(row, "text")),), ""


def _half(row: Row, column: str, role: Role) -> Iterable[Message]:
    """A question or an answer is text, or a list of messages."""
    if isinstance(_value(row, column), list):
        return _turns(row[column], column)
    return [Message(role, _text(row, column))]


def _turns(value: object, column: str) -> Iterable[Message]:
    if not isinstance(value, list):
        raise UnusableRowError(WRONG_TYPE, f"{column} is {_kind(value)}, not a list of messages")
    return [_turn(turn, f"{column}[{place}]") for place, turn in enumerate(value)]


def _turn(value: object, place: str) -> Message:
    """One message, by the names of either convention: role and content, or from and value."""
    if not isinstance(value, dict):
        raise UnusableRowError(WRONG_TYPE, f"{place} is {_kind(value)}, not an object with role and content")
    says, what = ("from", "value") if "from" in value else ("role", "content")
    role, content = value.get(says), value.get(what)
    if not isinstance(role, str) or role not in _ROLES:
        raise UnusableRowError(ROLE_ORDER, f"{place} has a role other than system, user, assistant")
    if not isinstance(content, str):
        raise UnusableRowError(WRONG_TYPE, f"{place}.{what} is {_kind(content)}, not text")
    if not content.strip():
        raise UnusableRowError(EMPTY_TEXT, f"{place}.{what} is empty")
    return Message(_ROLES[role], content)


def _check_turns(messages: Sequence[Message]) -> None:
    roles = [message.role for message in messages]
    if not roles or roles[-1] is not Role.ASSISTANT:
        raise UnusableRowError(NO_ANSWER_LAST, "the last message is not from the assistant")
    spoken = roles[1:] if roles[0] is Role.SYSTEM else roles
    if not spoken or spoken[0] is not Role.USER or Role.SYSTEM in spoken or any(a is b for a, b in pairwise(spoken)):
        raise UnusableRowError(ROLE_ORDER, "user and assistant do not take turns, the user first")


_READERS: Final[dict[Shape, Callable[[Row], Turns]]] = {
    Shape.MESSAGES: _read_messages,
    Shape.SHAREGPT: _read_sharegpt,
    Shape.DOLLY: _read_dolly,
    Shape.ALPACA: _read_alpaca,
    Shape.PROMPT_COMPLETION: _read_prompt_completion,
    Shape.PREFERENCE: _read_preference,
    Shape.QUESTION_ANSWER: _read_question_answer,
    Shape.TEXT: _read_text,
}
