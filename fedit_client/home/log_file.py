"""The log file of the commands: events of runs, and why commands failed, with tracebacks. The SDK never writes one."""

import logging
import os
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fedit_client.home.durable import make_private
from fedit_client.home.paths import Paths
from fedit_protocol.errors import FeditError, StorageError

_LOGGER: Final = logging.getLogger("fedit_client")
_MOST_BYTES: Final = 1_000_000
_OLDER: Final = 3


class CommandLog:
    """Keeps a log while one command runs; use as a context manager. A log that cannot be written stops nothing."""

    def __init__(self, paths: Paths) -> None:
        self.path = paths.log_file
        self._state = paths.state
        self._handler: logging.Handler | None = None
        self._level = _LOGGER.level

    def __enter__(self) -> Self:
        if self._state.exists():  # a command that only asks leaves nothing behind
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            _LOGGER.removeHandler(self._handler)
            _LOGGER.setLevel(self._level)
            self._handler.close()
            self._handler = None

    def failed(self, command: str, error: FeditError) -> Path | None:
        """Write down a failure with its traceback; return the file, or None if nothing was written."""
        if self._handler is None and error.code[0] == "X":
            self._open()
        if self._handler is None or error.code[0] == "U":
            return None
        _LOGGER.error("%s ended with FEDIT-%s: %s", command or "command line", error.code, error, exc_info=error)
        return self.path if self.path.exists() else None

    def _open(self) -> None:
        try:
            make_private(self.path.parent)
            self._handler = _PrivateFile(self.path, maxBytes=_MOST_BYTES, backupCount=_OLDER, encoding="utf-8")
        except (OSError, StorageError):
            return
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._level = _LOGGER.level
        _LOGGER.setLevel(logging.INFO)
        _LOGGER.addHandler(self._handler)


def close_logs_below(folder: Path) -> None:
    """Close the log files below a folder that is to be removed, for good: Windows removes no file that is open."""
    for handler in list(_LOGGER.handlers):
        if isinstance(handler, _PrivateFile) and Path(handler.baseFilename).is_relative_to(folder):
            _LOGGER.removeHandler(handler)
            handler.close()


class _PrivateFile(RotatingFileHandler):
    """A rotating file that only its owner can read, and whose own trouble (a full disk) is nobody's error."""

    def _open(self) -> "logging.TextIOWrapper":  # type: ignore[name-defined] # the base class names its module's import
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return super()._open()

    def close(self) -> None:
        """Close the file; what could not be written any more is lost."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Lose the line rather than the command."""
