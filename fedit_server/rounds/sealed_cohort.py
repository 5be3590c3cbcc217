"""Drives one trusted round: what was sealed stays so in the spool until the end, and is opened in this process only."""

import asyncio
import logging
from collections.abc import Sequence

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, IdentityKey, client_id, identity_key
from fedit_protocol.methods import method_of
from fedit_protocol.methods.trusted import Products, TrustedMethod
from fedit_protocol.sealed.collector import Collector
from fedit_protocol.sealed.opening import OpenedSum, OpeningJob
from fedit_protocol.secagg.effects import Effect, Record
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_server.rounds.driver import Desk, Driver
from fedit_server.storage.rounds import Opening

_KEY_GONE = "the key of this round is no longer on disk, and nothing else opens what was sealed to it"

log = logging.getLogger(__name__)


class SealedCohort(Driver[Collector]):
    """One open trusted round; all of its devices are one cohort."""

    def __init__(
        self, opening: Opening, cohort_id: int, document: TaskDocument, desk: Desk, records: Sequence[Record] = ()
    ) -> None:
        """Take up a round at the start, or from its journal's `records`. Raises FeditError if they do not fit."""
        self._document = document
        super().__init__(opening, cohort_id, desk, records)

    def loss(self) -> str:
        """Return what a restart has lost that the journal counts on: uploads, or the key that opens them."""
        return super().loss() or ("" if self._desk.round_keys.holds(self.opening.round_id) else _KEY_GONE)

    def _rebuild(self, records: Sequence[Record]) -> Collector:
        invited = [identity_key(client) for client in self.invited]
        return Collector.restore(self.opening.offer, self._desk.key, records, self._desk.clock(), invited)

    async def _work(self) -> bool:
        """Open and add the updates once they are fixed; whatever goes wrong fails the round."""
        if self.machine.stage is not Stage.OPEN:
            return False
        try:
            opened = await asyncio.to_thread(self._open, self.machine.job())
        except ProtocolError as error:
            await self.fail(error.problem, str(error))
        except Exception as error:  # an error that escaped would leave the stage without a deadline
            log.exception("the updates cannot be opened", extra=self._fields)
            await self.fail(ProblemType.INTERNAL, f"the server could not open the updates ({type(error).__name__})")
        else:
            await self.handle(lambda machine, now: machine.on_opened(opened, now))
        return True

    def _open(self, job: OpeningJob) -> OpenedSum:
        """Open with the key that is read for it, and held no longer than it takes."""
        secret = self._desk.round_keys.load(self.opening.round_id)
        if secret is None:
            raise ProtocolError(ProblemType.ROUND_FAILED, _KEY_GONE)
        needs_each = isinstance(method_of(self._document), TrustedMethod)
        products = Products(self._document.layout) if needs_each else None
        return job.run(lambda device: self._desk.spool.content(self._uploads[1, client_id(device)]), secret, products)

    def _take(self, effect: Effect) -> None:
        """A collector asks for nothing that its stage does not say."""

    def _drop_work(self) -> None:
        """There is nothing noted."""

    def _joiner(self, record: Record) -> ClientId | None:
        if record.kind != "accept":
            return None
        return client_id(IdentityKey(read_envelope(record.body, Kind.ACCEPT).signer))
