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
        self._one_by_one = asyncio.Lock()
        self._here: set[tuple[int, Digest, bool]] = set()

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
        wanted = version, digest, edition is not None
        async with self._one_by_one:
            if wanted not in self._here:
                await super().fetch(transport, version, digest, on_bytes, edition, state)
                self._here.add(wanted)
        return self.folder(version)

    def note_own_loss(self, version: int, loss: float, trained: float | None = None) -> None:
        """Nothing: no one client's loss belongs on a card that all share; rounds.jsonl has the mean."""
