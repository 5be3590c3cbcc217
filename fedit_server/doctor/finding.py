"""One thing that was looked at, and what came of it."""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from fedit_protocol.errors import FeditError, exit_status


class Level(IntEnum):
    """How bad a finding is; the worst is told first."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True)
class Finding:
    """What was found about one thing, and the command that helps. Errors have a code with a page."""

    check: str
    level: Level
    what: str
    fix: str | None = None
    code: str | None = None
    where: str | None = None

    @classmethod
    def of(cls, check: str, error: FeditError) -> "Finding":
        """An error that a command would end with, told before it does."""
        return cls(check, Level.ERROR, str(error), error.fix, error.code, error.where)

    @property
    def exit_code(self) -> int:
        """The status that doctor ends with if this is the worst."""
        return exit_status(self.code) if self.level is Level.ERROR and self.code else 0

    def lines(self) -> list[str]:
        """The same in words."""
        code = f" (FEDIT-{self.code})" if self.code else ""
        lines = [f"{self.level.name.lower():<8} {self.check:<12} {self.what}{code}"]
        for name, text in (("where", self.where), ("fix", self.fix)):
            if text and self.level is not Level.OK:
                lines.append(f"{'':<21} {name + ':':<6} {text}")
        return lines

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return asdict(self) | {"level": self.level.name.lower()}
