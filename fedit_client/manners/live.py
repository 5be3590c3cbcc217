"""`[polite]` as it is now: what `fedit-client set` writes is taken over by a client that runs."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fedit_client.manners.settings import PoliteSettings
from fedit_client.manners.words import RULES
from fedit_protocol.errors import FeditError

FROM_THE_START: Final = frozenset({"keep_awake", "max_memory_gb", "process_priority", "vram_reserve_gb"})
"""Keys of `[polite]` that decide how training is planned: a client keeps them until it is started again."""


def is_live(key: str) -> bool:
    """Whether a running client takes over a change of this setting (a dotted name) at once."""
    table, _, name = key.partition(".")
    return table == "polite" and name in PoliteSettings.model_fields and name not in FROM_THE_START


class LivePolite:
    """The owner's rules, read again whenever their file changes; one that is wrong then changes nothing."""

    def __init__(self, polite: PoliteSettings, read: Callable[[], PoliteSettings], file: Path) -> None:
        """`read` merges all sources as at the start; `file` is the one that is watched, client.toml."""
        self.now = polite
        self._read, self._file = read, file
        self._stamp = _stamp(file)
        self._followers: list[Callable[[PoliteSettings], None]] = []

    def follow(self, take: Callable[[PoliteSettings], None]) -> None:
        """Call `take` now and after every change."""
        self._followers.append(take)
        take(self.now)

    def look(self) -> list[str]:
        """Look whether the file has changed, and return what is different now, in words; one `stat` if nothing is."""
        if (stamp := _stamp(self._file)) == self._stamp:
            return []
        self._stamp = stamp
        try:
            read = self._read()
        except FeditError as error:
            return [f"the settings were changed, but not taken over: {error}"]
        kept = {name: getattr(self.now, name) for name in FROM_THE_START}
        before, self.now = self.now, read.model_copy(update=kept)
        changed = [name for name in PoliteSettings.model_fields if getattr(before, name) != getattr(self.now, name)]
        if changed:
            for take in self._followers:
                take(self.now)
        return [f"from now on this client {RULES[name](getattr(self.now, name))}" for name in changed]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        found = file.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
    return None
