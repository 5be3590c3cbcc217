"""Drives one masked cohort: runs the sums that its aggregator asks for, in threads, over the stored uploads."""

import asyncio
import logging
from collections.abc import Sequence

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, IdentityKey, client_id, identity_key
from fedit_protocol.messages import RosterMember
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Compute, Derive, Effect, Record
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import word_reader
from fedit_protocol.secagg.unmask import UnmaskJob, WrongSharesError
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_server.cores import usable_cores
from fedit_server.rounds.driver import Desk, Driver
from fedit_server.rounds.second_sum import SecondSum
from fedit_server.storage.rounds import Opening

log = logging.getLogger(__name__)


class LiveCohort(Driver[Aggregator]):
    """One open cohort of a masked round."""

    def __init__(
        self, opening: Opening, cohort_id: int, document: TaskDocument, desk: Desk, records: Sequence[Record] = ()
    ) -> None:
        """Take up a cohort at the start, or from the `records` of its journal. Raises FeditError if they do not fit."""
        self._job: UnmaskJob | None = None
        self._first: Aggregate | None = None
        """The first sum, while the second's input is to be derived from it."""
        self._second_sum = SecondSum.of(document, opening.offer, desk.blobs)
        super().__init__(opening, cohort_id, desk, records)

    def _rebuild(self, records: Sequence[Record]) -> Aggregator:
        invited = [identity_key(client) for client in self.invited]
        now = self._desk.clock()
        return Aggregator.restore(self.opening.offer, self._desk.key, records, now, invited, self.cohort_id)

    async def _work(self) -> bool:
        if self._job is not None:
            await self._sum(self._job)
        elif self._first is not None:
            await self._derive(self._first)
        else:
            return False
        return True

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Compute):
            self._job = effect.job
        elif isinstance(effect, Derive):
            self._first = effect.aggregate

    def _drop_work(self) -> None:
        self._job = self._first = None

    def _joiner(self, record: Record) -> ClientId | None:
        if record.kind != "join":
            return None
        join = read_envelope(decode(RosterMember, record.body).join, Kind.JOIN)
        return client_id(IdentityKey(join.signer))

    async def _sum(self, job: UnmaskJob) -> None:
        """Run the job in a thread and hand its result back, or fail the cohort with the reason."""
        self._job = None
        try:
            slots = [self._uploads[job.sum_index, client_id(survivor.identity)] for survivor in job.survivors]
            reader = word_reader(job.ring, self._desk.spool.reader(slots))
            aggregate = await asyncio.to_thread(job.run, reader, usable_cores())
        except WrongSharesError as error:
            await self.fail(error.problem, str(error), (error.dealer,))
        except ProtocolError as error:
            await self.fail(error.problem, str(error))
        except Exception as error:  # an error that escaped would leave the stage without job and without deadline
            log.exception("the sum failed", extra=self._fields)
            await self.fail(ProblemType.INTERNAL, f"the server could not sum the uploads ({type(error).__name__})")
        else:
            if self.ending is None:  # the round may have given this cohort up meanwhile
                await self.handle(lambda machine, now: machine.on_sum(aggregate, now))

    async def _derive(self, first: Aggregate) -> None:
        """Prepare the second sum's input; whatever goes wrong leaves the first sum, which is safe."""
        self._first = None
        try:
            derived = await self._second_sum.derive(first) if self._second_sum else None
        except Exception as error:
            log.exception("the second sum's input cannot be derived", extra=self._fields)
            reason = f"its input could not be derived ({type(error).__name__})"
            await self.handle(lambda machine, now: machine.give_up_second(reason, now))
            return
        if derived is None:
            await self.handle(lambda machine, now: machine.give_up_second("there is nothing to gain by it", now))
        else:
            await self.handle(lambda machine, now: machine.on_second_input(*derived, now))
