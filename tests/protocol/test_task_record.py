"""A task's record holds as a whole: whoever trusts its newest line finds every earlier one as it was written."""

from collections.abc import Callable

import pytest

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import Message, decode, digest_of, encode
from fedit_protocol.errors import SecurityError
from fedit_protocol.ids import TaskId
from fedit_protocol.signing import Envelope, SigningKey
from fedit_protocol.task_record import ChangeKind, TaskChange, check_record, head_of, read_line, sign_change
from fedit_protocol.testing import MemoryFederation, seeded_random

FEDERATION = MemoryFederation(1, seed="record")
ID, TASK = FEDERATION.descriptor.federation_id, TaskId("notes")
LATER = SigningKey(seeded_random("later key")(32))
STEPS = [
    (ChangeKind.CREATED, TaskState.DRAFT),
    (ChangeKind.OPENED, TaskState.ACTIVE),
    (ChangeKind.PAUSED, TaskState.PAUSED),
    (ChangeKind.CONTINUED, TaskState.PAUSED),
]


def record() -> list[bytes]:
    """Four lines, the last one under a later key of the server."""
    lines: list[bytes] = []
    for number, (kind, state) in enumerate(STEPS, 1):
        line = TaskChange(
            task_id=TASK,
            number=number,
            previous=head_of(lines)[1],
            at=100 + number,
            kind=kind,
            state=state,
            version=1,
            document=digest_of(b"document"),
            by="operator",
            reason="",
        )
        lines.append(sign_change(LATER if kind is ChangeKind.CONTINUED else FEDERATION.server, ID, line))
    return lines


def test_a_whole_record_is_read_although_the_key_has_changed() -> None:
    lines = check_record(record(), ID, TASK, LATER.public)
    assert [(line.kind, line.state) for line in lines] == STEPS
    assert head_of(record()) == (4, digest_of(record()[-1]))


def altered(lines: list[bytes], place: int, **changes: object) -> list[bytes]:
    """Change what a line says and leave its signature."""
    envelope = decode(Envelope, lines[place])
    body = encode(decode(TaskChange, envelope.body).model_copy(update=changes))
    return [*lines[:place], encode(envelope.model_copy(update={"body": body})), *lines[place + 1 :]]


def signed_anew(lines: list[bytes], place: int, key: SigningKey, **changes: object) -> list[bytes]:
    """Change what a line says and sign it properly."""
    line = read_line(lines[place]).model_copy(update=changes)
    return [*lines[:place], sign_change(key, ID, line), *lines[place + 1 :]]


FORGED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "another state": (lambda lines: altered(lines, 1, state=TaskState.PAUSED), "line 2"),
    "another reason": (lambda lines: altered(lines, 2, reason="rain"), "line 3"),
    "a line left out": (lambda lines: [lines[0], *lines[2:]], "line 2"),
    "the first line left out": (lambda lines: lines[1:], "line 1"),
    "two lines the other way round": (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "line 2"),
    "the newest line left out": (lambda lines: lines[:-1], "line 3"),
    "a line that the server signed anew": (
        lambda lines: signed_anew(lines, 0, FEDERATION.server, reason="otherwise"), "line 2",
    ),
    "a line of another task": (lambda lines: signed_anew(lines, 3, LATER, task_id=TaskId("other")), "line 4"),
    "a line before the one before": (lambda lines: signed_anew(lines, 3, LATER, at=1), "line 4"),
    "a newest line of a stranger": (lambda lines: signed_anew(lines, 3, FEDERATION.devices[0]), "line 4"),
    "nothing": (lambda _lines: [], "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED.values(), ids=FORGED)
def test_a_record_that_was_touched_is_refused_at_the_line(
    case: tuple[Callable[[list[bytes]], list[bytes]], str],
) -> None:
    forge, where = case
    with pytest.raises(SecurityError, match=where):
        check_record(forge(record()), ID, TASK, LATER.public)


def test_a_line_of_another_federation_is_refused() -> None:
    other = MemoryFederation(1, seed="another").descriptor.federation_id
    with pytest.raises(SecurityError, match="line 1") as refused:
        check_record(record(), other, TASK, LATER.public)
    assert refused.value.code == "T120"


def test_every_line_travels_as_canonical_bytes() -> None:
    for envelope in record():
        line: Message = read_line(envelope)
        assert encode(decode(TaskChange, encode(line))) == encode(line)
