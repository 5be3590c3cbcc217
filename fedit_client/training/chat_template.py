"""The base's own chat template at work, seen from outside: sandboxed, in its own process, bounded in time and length.

A task carries no template: it names a built-in one, or `chat`, the tokenizer's own, which the base's digest covers.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from fedit_client.data import Message
from fedit_protocol.errors import DataError, DeviceError, ModelError, TaskRefusedError

View = tuple[int, bool]
"""How many messages of a conversation are shown, and whether the next answer is opened after them."""

_PATIENCE_S: Final = 10.0
_PER_CONVERSATION_S: Final = 0.05
"""A conversation takes a millisecond; whoever needs fifty each time is stopped after the first few."""

_MOST_TEMPLATE: Final = 256 * 1024
_MOST_TEXT: Final = 256 * 1024
_MOST_TEXT_PER_CHARACTER: Final = 4
_ALPACA: Final = 'ask the operator for prompt.template = "alpaca"'


class ChatTemplate:
    """Renders conversations by the tokenizer's template; use as a context manager. The process starts when needed."""

    def __init__(self, tokenizer: Any, patience_s: float = _PATIENCE_S) -> None:
        self._tokenizer, self._patience_s, self._left_s = tokenizer, patience_s, patience_s
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def render(self, messages: Sequence[Message], views: Sequence[View]) -> list[str]:
        """Return the text of each view of a conversation.

        Raises ModelError M003 without a template, DataError D016 if it says that it does not take this conversation,
        TaskRefusedError K012 if it breaks, takes too long, or writes or needs too much.
        """
        process = self._process or self._start()
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        length = sum(len(message.content) for message in messages)
        begun, limit_s = time.monotonic(), self._left_s + _PER_CONVERSATION_S
        request = {
            "turns": turns,
            "views": list(views),
            "most": _MOST_TEXT + _MOST_TEXT_PER_CHARACTER * length,
            "limit_s": limit_s,
        }
        told = _ask(process, request)
        took_s = time.monotonic() - begun
        self._left_s = min(self._patience_s, limit_s - took_s)
        if told is None:
            raise _refused("it takes too long" if took_s >= limit_s else "it ended the process that renders it")
        if "unfit" in told:
            raise DataError(
                f"the base's chat template does not take one of your conversations: {told['unfit']}",
                code="D016",
                fix=f"leave out such rows, or {_ALPACA}",
            )
        if "refused" in told or self._left_s <= 0:
            raise _refused(told.get("refused", "it takes too long"))
        return list(told["texts"])

    def _start(self) -> "subprocess.Popen[str]":
        template = _template(self._tokenizer)
        # The child must find the very code that runs here, also where it was put on sys.path by hand.
        path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedit_client.training.render"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="ascii",
            env={**os.environ, **path},
        )
        special = {name: str(value) for name, value in self._tokenizer.special_tokens_map.items()}
        if _ask(self._process, {"template": template, "special": special}) is None:
            raise DeviceError("the process that renders chat templates ended at its start", code="H004")
        return self._process


def _template(tokenizer: Any) -> str:
    """The text of the template that transformers would take."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise ModelError("the base's tokenizer has no chat template", code="M003", fix=_ALPACA) from error
    if not isinstance(template, str):
        raise _refused("it is not a text")
    if len(template) > _MOST_TEMPLATE:
        raise _refused(f"it has {len(template)} characters, and {_MOST_TEMPLATE} are the limit here")
    return template


def _ask(process: "subprocess.Popen[str]", message: dict[str, Any]) -> dict[str, Any] | None:
    """Send one line and return the answer; None if the process has ended."""
    if not (process.stdin and process.stdout):
        raise RuntimeError("the process is started with two pipes")
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    told: dict[str, Any] | None = json.loads(line) if line.endswith("\n") else None
    return told


def _refused(reason: str) -> TaskRefusedError:
    return TaskRefusedError(f"the base's chat template cannot be used: {reason}", code="K012", fix=_ALPACA)
