"""Every word that an operator sees: plain lines, the JSON envelope, errors with their fix."""

import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from rich.console import Console as RichConsole
from rich.text import Text

from fedit_protocol.errors import FeditError

Color = Literal["auto", "always", "never"]
SCHEMA: Final = "fedit/1"
PROGRAM: Final = "fedit-server"


@dataclass
class Console:
    """Where a command's words go. With --json stdout holds JSON only."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    warnings: list[str] = field(default_factory=list)
    color: Color = "auto"

    def __post_init__(self) -> None:
        # Looks at NO_COLOR, FORCE_COLOR and TERM by itself; no markup, for many words come from elsewhere.
        look: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}
        if self.color != "auto":
            look |= {"no_color": self.color == "never"}
        if self.color == "always":  # not force_terminal: nothing else of a terminal is claimed
            look["color_system"] = "standard"
        self._out, self._err = RichConsole(**look), RichConsole(stderr=True, **look)

    def say(self, text: str = "") -> None:
        """One line for people."""
        if not (self.quiet or self.json):
            self._out.print(Text(text))

    def done(self, text: str) -> None:
        """One line that says that a step is done."""
        try:
            "✓".encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return self.say(f"ok: {text}")
        return self.say(f"✓ {text}")

    def answer(
        self, command: str, data: dict[str, Any], lines: Iterable[str], failed: FeditError | None = None
    ) -> None:
        """The result of a command: lines for people, or the JSON envelope; `failed` where the result is trouble."""
        if self.json:
            told = None if failed is None else _told(failed)
            return self.write_json(envelope(command, data, self.warnings, told))
        for line in lines:
            self._out.print(Text(line))
        return None

    def write_json(self, value: dict[str, Any]) -> None:
        """One JSON object, one line, at once: somebody may be reading along."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def fail(self, command: str, error: FeditError) -> None:
        """Say what happened, where, and what to do; a traceback only with --verbose."""
        if self.verbose:
            traceback.print_exception(error, file=sys.stderr)
        if self.json:
            self.write_json(envelope(command, {}, self.warnings, _told(error)))
        self._err.print(Text(f"{PROGRAM}: error: FEDIT-{error.code}: {error}", style="red"))
        for name, value in (("where", error.where), ("fix", error.fix), ("more", _page(error))):
            if value:
                self._err.print(Text(f"  {name + ':':<6} {value}"))


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


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return lines with aligned columns; a list without rows says so."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return ["none"]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [head, *cells]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def when(seconds: float | None) -> str:
    """Return a time in UTC as people read it."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
