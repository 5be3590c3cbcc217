"""The global adapters of a whole fleet in one folder: they are public, so a hundred clients need not keep a hundred."""

import asyncio
from pathlib import Path

from fedit_client.adapters.kept import AdapterShelf
from fedit_client.network.transport import OnBytes, Transport
from fedit_protocol.ids import Digest
from fedit_protocol.messages import BlobRef
from fedit_protocol.peft_folder import Edition
from fedit_protocol.task import TaskDocument


class SharedShelf(AdapterShelf):
    """Fetches each version once, for whoever asks first; the others wait for it. One event loop."""

    def __init__(self, folder: Path, document: TaskDocument, licence: str = "") -> None:
        """Keep versions under `folder`."""
        super().__init__(folder, document, licence)
        self._place, self._one_by_one = folder, asyncio.Lock()
        self._here: set[tuple[int, Digest, bool, bool]] = set()

    def for_client(self) -> "ClientShelf":
        """Return what one client sees of it."""
        return ClientShelf(self, self._place, self._document)

    async def fetch(
        self,
        transport: Transport,
        version: int,
        digest: Digest,
        on_bytes: OnBytes,
        edition: Edition | None = None,
        state: BlobRef | None = None,
    ) -> Path:
        """Return the PEFT folder of a version; raises as `AdapterShelf.fetch`."""
        # A committed version is written once more, for what its round says about it stands on its card.
        wanted = version, digest, edition is not None, state is not None
        async with self._one_by_one:
            if wanted not in self._here:
                await super().fetch(transport, version, digest, on_bytes, edition, state)
                self._here.add(wanted)
        return self.folder(version)


class ClientShelf(AdapterShelf):
    """One client's view: the adapters are shared, its own losses are not, and stand on no card that all share."""

    def __init__(self, shared: SharedShelf, folder: Path, document: TaskDocument) -> None:
        """Know of no loss yet."""
        super().__init__(folder, document)
        self._shared = shared
        self._own_loss: float | None = None

    async def fetch(
        self,
        transport: Transport,
        version: int,
        digest: Digest,
        on_bytes: OnBytes,
        edition: Edition | None = None,
        state: BlobRef | None = None,
    ) -> Path:
        """Return the PEFT folder of a version; raises as `AdapterShelf.fetch`."""
        return await self._shared.fetch(transport, version, digest, on_bytes, edition, state)

    def note_own_loss(self, version: int, loss: float, trained: float | None = None) -> None:
        """Remember it, as long as the fleet runs."""
        self._own_loss = loss

    def last_own_loss(self) -> float | None:
        """Return the loss that was noted last."""
        return self._own_loss
