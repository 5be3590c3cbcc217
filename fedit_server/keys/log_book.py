"""Answers for those who check the key log: paths from certificates to heads, and how one head grew from another."""

import asyncio

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import Certificate, ProvenCertificate
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.keylog import LogGrowth, LogHead, LogPath, MerkleTree
from fedit_protocol.signing import Kind, read_envelope
from fedit_server.storage.key_log import KeyLog

_MOST_TREES = 4
"""Rounds of several tasks may stand on different heads; each tree takes about 128 bytes an entry."""


class LogBook:
    """Proofs over the stored log. A log only grows, so the tree of a size is built once and kept."""

    def __init__(self, log: KeyLog) -> None:
        self._log = log
        self._trees: dict[int, MerkleTree] = {}
        self._growing = asyncio.Lock()

    async def proven(self, certificate: bytes, head: bytes) -> bytes:
        """Return a certificate with its path to a signed head, as rosters show it; raises not-enrolled if newer."""
        index, size = log_index(certificate), decode(LogHead, read_envelope(head, Kind.LOG_HEAD).body).size
        if index >= size:
            raise ProtocolError(ProblemType.NOT_ENROLLED, "this device was enrolled after the round had opened")
        return encode(ProvenCertificate(certificate=certificate, path=(await self._tree(size)).inclusion(index)))

    async def path(self, index: int, size: int) -> LogPath:
        """Return the path from entry `index` to the head of `size` entries; raises malformed if there is none."""
        tree = await self._tree(size)
        if not 0 <= index < size:
            raise ProtocolError(ProblemType.MALFORMED, f"a log of {size} entries has no entry {index}")
        return tree.inclusion(index)

    async def growth(self, old_size: int, new_size: int) -> LogGrowth:
        """Return the proof that the log of `new_size` entries continues that of `old_size`, and what it revokes."""
        tree = await self._tree(new_size)
        if not 0 <= old_size <= new_size:
            raise ProtocolError(ProblemType.MALFORMED, f"a log of {new_size} did not grow from one of {old_size}")
        revoked = (await self._log.state(new_size)).revoked
        return LogGrowth(path=tree.consistency(old_size), revoked=revoked)

    async def _tree(self, size: int) -> MerkleTree:
        async with self._growing:  # a whole cohort asks at once: the first builds it, in a thread, for all
            if size not in self._trees:
                leaves = (await self._log.state(size)).leaves
                if len(leaves) != size:
                    raise ProtocolError(ProblemType.MALFORMED, f"the log has {len(leaves)} entries, not {size}")
                tree = await asyncio.to_thread(MerkleTree, leaves)
                if len(self._trees) >= _MOST_TREES:
                    self._trees.pop(next(iter(self._trees)))
                self._trees[size] = tree
            return self._trees[size]


def log_index(certificate: bytes) -> int:
    """Return the place in the log that a certificate names."""
    return decode(Certificate, read_envelope(certificate, Kind.CERTIFICATE).body).log_index
