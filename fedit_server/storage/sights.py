"""When each device was last seen: noted without making it wait."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, update

from fedit_protocol.errors import StorageError
from fedit_protocol.ids import ClientId
from fedit_server.storage.database import Database
from fedit_server.storage.rows import ClientRow, ClientState
from fedit_server.storage.tables import clients
from fedit_server.storage.together import Together

SEEN_STEP_S: Final = 3600
"""When a client was last seen is kept in whole hours: enough to see who is gone, too coarse to follow a day."""

_A_SECOND: Final = 5
"""Transactions: nobody waits for one, and a round needs the disk more."""

log = logging.getLogger(__name__)

_Sight = tuple[ClientId, str, str, int]
"""A client that was seen, on which kind of device, with which version, and the hour (Unix seconds) in which it was."""


class Sights:
    """Writes at most once an hour for each client, in one transaction for all who come meanwhile.

    Every device comes within half a minute after the hour: a transaction for each would hold up all of them. Nobody
    waits for it either, because its turn to write comes after all that a round has to write.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sights = Together[_Sight, None](self._write, _A_SECOND)

    def saw(self, client: ClientRow, device_kind: str, version: str, now_s: int) -> None:
        """Note that a client is alive; a crash may lose it, and its next check-in brings it again."""
        hour = now_s - now_s % SEEN_STEP_S
        if (client.last_seen, client.device_kind, client.client_version) != (hour, device_kind, version):
            _ = self._sights.ask((client.client_id, device_kind, version, hour))

    async def settle(self) -> None:
        """Wait until all that was noted is written."""
        await self._sights.settle()

    async def _write(self, sights: Sequence[_Sight]) -> dict[_Sight, None]:
        # Of who left meanwhile nothing is written back: leaving has just removed it.
        there = (clients.c.client_id == bindparam("client")) & (clients.c.state == ClientState.ACTIVE)
        seen = update(clients).where(there)
        told: dict[str, Any] = {"device_kind": bindparam("kind"), "client_version": bindparam("version")}
        seen, names = seen.values(last_seen=bindparam("hour"), **told), ("client", "kind", "version", "hour")
        try:
            async with self._database.writing(alone="sights") as db:
                await db.execute(seen, [dict(zip(names, sight, strict=True)) for sight in sorted(sights)])
        except StorageError as error:
            log.warning("when %d devices were last seen is not written: %s", len(sights), error)
        return {}
