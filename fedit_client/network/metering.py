"""A Transport that counts what goes through it, and notes which host it goes to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedit_client.network.transport import OnBytes, Transport
from fedit_protocol.ids import Digest


@dataclass(frozen=True)
class Traffic:
    """Bytes of message bodies, up and down, without HTTP's own and without what retries repeat."""

    up: int = 0
    down: int = 0

    def since(self, before: "Traffic") -> "Traffic":
        """Return what came after an earlier count."""
        return Traffic(self.up - before.up, self.down - before.down)


class MeteredTransport:
    """Counts the bodies of another transport; `contacted` is called with every answer."""

    def __init__(self, inner: Transport, contacted: Callable[[], None] = lambda: None) -> None:
        """Count from zero."""
        self._inner, self._contacted = inner, contacted
        self.traffic = Traffic()

    async def get(self, path: str) -> bytes:
        """Return a control document."""
        answer = await self._inner.get(path)
        self._count(0, len(answer))
        return answer

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a control message."""
        answer = await self._inner.post(path, body)
        self._count(len(body), len(answer))
        return answer

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        """Put an upload; it counts whole, however often it was cut and resumed."""
        receipt = await self._inner.upload(path, header, payload, on_bytes)
        self._count(len(header) + len(payload), len(receipt))
        return receipt

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        """Fetch a blob into a file; where only its change has come, that counts."""
        came = 0

        def count(done: int, total: int) -> None:
            nonlocal came
            came = done
            on_bytes(done, total)

        await self._inner.download(digest, target, limit, count, known)
        self._count(0, came)

    def _count(self, up: int, down: int) -> None:
        self.traffic = Traffic(self.traffic.up + up, self.traffic.down + down)
        self._contacted()
