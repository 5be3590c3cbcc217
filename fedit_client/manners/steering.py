"""What a client offers to be steered with: wishes in a file that any process of its owner can write."""

import time
from datetime import datetime

from fedit_client.home.paths import Paths
from fedit_client.manners.control import ask_finish, ask_pause, ask_resume


class TakesWishes:
    """Pause, resume and finish, for a client in this process or in any other that runs on the same home."""

    _paths: Paths

    def pause(self, until: datetime | None = None) -> None:
        """Pause the client that runs on this home, and any later one, until then or until `resume`.

        It stops within seconds after a checkpoint, and says so by an event. Raises StorageError.
        """
        ask_pause(self._paths, time.time(), until.timestamp() if until else None)

    def resume(self) -> None:
        """Take back a pause and a `finish`; rules of `[polite]` may still say no. Raises StorageError."""
        ask_resume(self._paths, time.time())

    def finish(self) -> None:
        """Let the client that runs on this home complete its round and then stop; raises MembershipError J006."""
        ask_finish(self._paths, time.time())
