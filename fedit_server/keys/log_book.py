"""Answers for those who check the key log: paths from certificates to heads, and how one head grew from another."""

import asyncio
import threading
from collections.abc import Sequence

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import Certificate, ProvenCertificate
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.keylog import LogGrowth, LogHead, LogPath, MerkleTree
from fedit_protocol.signing import Kind, read_envelope
from fedit_server.storage.key_log import KeyLog


class LogBook:
    """Proofs over the stored log, of every size that it has had: a log only grows, and one tree grows with it."""

    def __init__(self, log: KeyLog) -> None:
        self._log = log
        self._tree = MerkleTree()
        self._growing = asyncio.Lock()
        self._adding = threading.Lock()

    async def proven(self, certificate: bytes, head: bytes) -> bytes:
        """Return a certificate with its path to a signed head, as rosters show it; raises not-enrolled if newer."""
        index, size = log_index(certificate), decode(LogHead, read_envelope(head, Kind.LOG_HEAD).body).size
        if index >= size:
            raise ProtocolError(ProblemType.NOT_ENROLLED, "this device was enrolled after the round had opened")
        await self._reach(size)
        return encode(ProvenCertificate(certificate=certificate, path=self._tree.inclusion(index, size)))

    async def path(self, index: int, size: int) -> LogPath:
        """Return the path from entry `index` to the head of `size` entries; raises malformed if there is none."""
        await self._reach(size)
        if not 0 <= index < size:
            raise ProtocolError(ProblemType.MALFORMED, f"a log of {size} entries has no entry {index}")
        return self._tree.inclusion(index, size)

    async def growth(self, old_size: int, new_size: int) -> LogGrowth:
        """Return the proof that the log of `new_size` entries continues that of `old_size`, and what it revokes."""
        await self._reach(new_size)
        if not 0 <= old_size <= new_size:
            raise ProtocolError(ProblemType.MALFORMED, f"a log of {new_size} did not grow from one of {old_size}")
        revoked = (await self._log.state(new_size)).revoked
        return LogGrowth(path=self._tree.consistency(old_size, new_size), revoked=revoked)

    async def _reach(self, size: int) -> None:
        """Let the tree grow to at least `size` entries; raises ProtocolError (malformed) if the log has fewer."""
        async with self._growing:  # a whole cohort asks at once: the first one reads, for all
            if size <= self._tree.size:
                return
            leaves = (await self._log.state()).leaves
            if len(leaves) < size:
                raise ProtocolError(ProblemType.MALFORMED, f"the log has {len(leaves)} entries, not {size}")
            await asyncio.to_thread(self._grow, leaves)

    def _grow(self, leaves: Sequence[bytes]) -> None:
        with self._adding:  # whoever asked may be gone, and somebody else asking, while a thread still adds
            for leaf in leaves[self._tree.size :]:
                self._tree.add(leaf)


def log_index(certificate: bytes) -> int:
    """Return the place in the log that a certificate names."""
    return decode(Certificate, read_envelope(certificate, Kind.CERTIFICATE).body).log_index
