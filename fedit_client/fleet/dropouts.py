"""Who drops out of which round, at which step: drawn from the fleet's seed; and a transport that falls silent there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_client.fleet.chance import draws
from fedit_client.network.transport import OnBytes, Transport
from fedit_protocol.ids import Digest

STEPS: Final = ("join", "shares", "ack", "training", "upload", "unmask")
"""What a client may be about to do when it is gone; each is as likely as the others."""

SEALED_STEPS: Final = ("join", "training", "upload")
"""The same in trusted rounds, in which nothing is masked."""

_STEP_OF: Final = {
    "join": "join",
    "accept": "join",
    "shares": "shares",
    "ack": "ack",
    "uploads": "upload",
    "unmask": "unmask",
}
"""A request's verb → its step."""


class VanishedError(BaseException):
    """This device is gone, as if its power had failed: nobody is told, and nothing of the client may tidy up."""


@dataclass(frozen=True)
class Dropouts:
    """Each client leaves each of its rounds with probability `share`, before one of the steps in `among`."""

    seed: int
    share: float = 0.0
    among: tuple[str, ...] = STEPS

    def step(self, client: int, round_no: int) -> str | None:
        """Return the step before which this client is gone in this round, or None if it stays."""
        chance = draws(self.seed, "dropout", client, round_no)
        return self.among[int(chance.integers(len(self.among)))] if float(chance.random()) < self.share else None


class FallingSilent:
    """A Transport that is gone from a step of a round on; `passed` is told each step that the server has."""

    def __init__(self, inner: Transport, passed: Callable[[str], None]) -> None:
        """Stay, until `leave_before` names a step."""
        self._inner, self._passed = inner, passed
        self.leave_before: str | None = None
        self.gone = False

    def vanish_at(self, step: str) -> None:
        """Raise VanishedError if this is the step before which the device is gone, or if it is gone already."""
        if self.gone or (step and step == self.leave_before):
            self.gone = True
            raise VanishedError

    async def get(self, path: str) -> bytes:
        """Return a control document."""
        self.vanish_at("")
        return await self._inner.get(path)

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a control message."""
        step = step_of(path)
        self.vanish_at(step)
        answer = await self._inner.post(path, body)
        self._tell(step)
        return answer

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        """Put an upload."""
        step = step_of(path)
        self.vanish_at(step)
        receipt = await self._inner.upload(path, header, payload, on_bytes)
        self._tell(step)
        return receipt

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        """Fetch a blob."""
        self.vanish_at("")
        await self._inner.download(digest, target, limit, on_bytes, known)

    def _tell(self, step: str) -> None:
        if step:
            self._passed(step)


def step_of(path: str) -> str:
    """Return the step that a request's path belongs to, or an empty text."""
    parts = path.removeprefix("/v1/").split("/")
    return _STEP_OF.get(parts[2], "") if len(parts) > 2 and parts[0] == "rounds" else ""
