"""Every word that a person sees goes through here: plain or JSON, with or without a terminal."""

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console as RichConsole
from rich.text import Text

from fedit_protocol.errors import ConfigError, FeditError

SCHEMA: Final = "fedit/1"
EVENT_SCHEMA: Final = "fedit.event/1"
PROGRAM: Final = "fedit-client"
INTERRUPTED: Final = 130
_LOOK_UP_S: Final = 0.2


@dataclass
class Console:
    """Where a command's words go. In JSON mode stdout holds JSON only; people's lines are dropped then."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_input: bool = False
    yes: bool = False
    color: Literal["auto", "always", "never"] = "auto"
    warnings: list[str] = field(default_factory=list)
    _noticed: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self.open_streams()

    def open_streams(self) -> None:
        """Set up stdout and stderr for the colours that are wanted."""
        # Looks at NO_COLOR, FORCE_COLOR and TERM by itself; no markup, for many words come from elsewhere.
        look: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}
        if self.color != "auto":
            look |= {"no_color": self.color == "never"}
        if self.color == "always":  # not force_terminal: bars that move are for terminals only
            look["color_system"] = "standard"
        self.out, self.err = RichConsole(**look), RichConsole(stderr=True, **look)

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to answer a question."""
        streams: tuple[Any, Any] = (sys.stdin, sys.stdout)  # None where the descriptor was closed before the start
        return not (self.no_input or self.json) and all(stream is not None and stream.isatty() for stream in streams)

    @property
    def animated(self) -> bool:
        """Whether bars may move: on a terminal that can, and nowhere where a machine reads (TERM=dumb, CI, a pipe)."""
        shown = not (self.json or self.quiet) and sys.stdout is not None and sys.stdout.isatty()
        return shown and self.out.is_terminal and not self.out.is_dumb_terminal and not os.environ.get("CI")

    def say(self, text: str = "", style: str = "") -> None:
        """One line for people."""
        if not (self.quiet or self.json):
            self.out.print(Text(text, style=style))

    def done(self, text: str) -> None:
        """One line that says that a step is done."""
        self.say(f"✓ {text}" if self.can_show("✓") else f"ok: {text}")

    def warn(self, text: str) -> None:
        """One line on stderr, and an entry in the JSON answer."""
        self.warnings.append(text)
        if not self.json:
            self.err.print(Text(f"{PROGRAM}: warning: {text}", style="yellow"))

    def notice(self, text: str) -> None:
        """One line on stderr that everybody should see once, and an entry in the JSON answer."""
        if text in self._noticed:
            return
        self._noticed.add(text)
        if self.json:
            self.warnings.append(text)
        elif not self.quiet:
            self.err.print(Text(text, style="dim"))

    def answer(
        self, command: str, data: dict[str, Any], lines: Iterable[str], failed: FeditError | None = None
    ) -> None:
        """The result of a command: lines for people, or the JSON envelope; `failed` where the result is trouble."""
        if self.json:
            self.write_json(envelope(command, data, self.warnings, None if failed is None else _told(failed)))
            return
        for line in lines:
            self.out.print(Text(line))

    def event(self, fields: dict[str, Any]) -> None:
        """One line of a running command's JSON stream."""
        self.write_json({"schema": EVENT_SCHEMA, "time": round(time.time(), 3), **fields})

    def write_json(self, value: dict[str, Any]) -> None:
        """One JSON object, one line, at once: somebody may be reading along."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def fail(self, command: str, error: FeditError, log: Path | None = None) -> None:
        """Say what happened, where, and what to do; a traceback only with --verbose, else in the log file."""
        if self.verbose:
            traceback.print_exception(error, file=sys.stderr)
        if self.json:
            self.write_json(envelope(command, {}, self.warnings, _told(error)))
        self.err.print(Text(f"{PROGRAM}: error: FEDIT-{error.code}: {error}", style="red"))
        lines = {"where": error.where, "fix": error.fix, "more": _page(error), "log": str(log) if log else None}
        for name, value in lines.items():
            for place, line in enumerate((value or "").splitlines()):  # a fix may be one of several lines to paste
                self.err.print(Text(f"  {'or' if place else name + ':':<6} {line}"))

    def interrupted(self, command: str) -> None:
        """End a command that Ctrl-C, a signal or a closed terminal has stopped."""
        if self.json:
            told = {"code": "INTERRUPTED", "message": "interrupted", "where": None, "fix": None, "doc": None,
                    "exit": INTERRUPTED}  # fmt: skip
            self.write_json(envelope(command, {}, self.warnings, told))

    def confirm(self, question: str, *, flag: str) -> bool:
        """Ask yes or no; without a terminal raise ConfigError U002, which names the flag that answers."""
        if self.yes:
            return True
        return self.ask(f"{question} [y/N]", flag=flag).strip().lower() in {"y", "yes"}

    def ask(self, question: str, *, flag: str) -> str:
        """Ask for a line of text; without a terminal raise ConfigError U002."""
        if not self.interactive:
            raise ConfigError(f"nobody is here to answer: {question}", code="U002", fix=f"add {flag}", again=flag)
        with _signals_end_the_question():
            self.out.print(Text(f"? {question} "), end="")
            _wait_for_a_line()
            return self.out.input()

    def can_show(self, symbol: str) -> bool:
        """Whether stdout's encoding has this symbol."""
        try:
            symbol.encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return False
        return True


def _told(error: FeditError) -> dict[str, Any]:
    return {
        "code": f"FEDIT-{error.code}",
        "message": str(error),
        "where": error.where,
        "fix": error.fix,
        "doc": _page(error),
        "exit": error.exit_code,
    }


def _page(error: FeditError) -> str:
    return f"{PROGRAM} help {error.code}"


@contextmanager
def _signals_end_the_question() -> Iterator[None]:
    """Let one Ctrl-C, SIGTERM or closed terminal end a question, as KeyboardInterrupt.

    An event loop's own handlers only note a signal for later, and waiting for an answer holds the loop up.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in {signal.SIG_IGN, None}:  # ignored stays ignored
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        hung_up = getattr(signal, "SIGHUP", None)
        if hung_up in before:
            before[hung_up] = signal.SIG_IGN  # a closing terminal says so twice; the first one is being obeyed
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_a_line() -> None:
    """Return once a line was typed, looking up now and then: a signal just before `read` would wait for it unseen."""
    if os.name == "posix":  # elsewhere nothing but sockets can be waited for
        while not select.select([sys.stdin], [], [], _LOOK_UP_S)[0]:
            pass


def envelope(command: str, data: dict[str, Any], warnings: list[str], error: dict[str, Any] | None) -> dict[str, Any]:
    """Return the one JSON object that a command ends with (EXPERIENCE, section 2)."""
    return {
        "schema": SCHEMA,
        "command": command,
        "ok": error is None,
        "data": data,
        "warnings": list(warnings),
        "error": error,
    }
