"""What evaluators are given and what they report: candidates, signed by the server, and losses, signed by a device.

The server believes who says it and about which adapter, never that the figures are true: an evaluator is somebody whom
the operator has appointed. Torch is on the evaluator's machine only.
"""

import logging
from dataclasses import dataclass

from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.evaluation import Candidate, CandidateState, EvaluationReport, check_report
from fedit_protocol.ids import ClientId, Digest, IdentityKey, RoundId, TaskId, client_id
from fedit_protocol.signing import Kind, read_envelope, seal, unseal
from fedit_server.access.auth import Doorkeeper
from fedit_server.clock import unix_seconds
from fedit_server.rounds.coordinator import Coordinator
from fedit_server.rounds.starting import state_ref
from fedit_server.storage.rows import EvaluationRow, RoundRow, RoundState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluations:
    """The evaluators' counter of one server."""

    coordinator: Coordinator
    doorkeeper: Doorkeeper

    async def candidate(self, task_id: TaskId, reader: IdentityKey, after: int) -> bytes:
        """Return the signed newest candidate behind round `after`, waiting as long as a long poll may; then not-ready.

        Raises ProtocolError: unknown-task, policy-refused for a device that is no evaluator.
        """
        await self._require_evaluator(client_id(reader))
        bell = self.coordinator.bell_of(task_id)
        return await self.coordinator.poll(lambda: self._newest(task_id, client_id(reader), after), bell)

    async def take(self, round_id: RoundId, received: bytes) -> None:
        """Keep a report, and let its task look at it. The same bytes again change nothing.

        Raises ProtocolError: malformed, bad-signature, not-enrolled, policy-refused, unknown-round, round-failed,
        not-ready, context-mismatch, conflict.
        """
        report = unseal(received, Kind.EVALUATION, self._context, EvaluationReport)
        reporter = client_id(IdentityKey(read_envelope(received, Kind.EVALUATION).signer))
        await self.doorkeeper.enrolled(IdentityKey(bytes.fromhex(reporter)))
        await self._require_evaluator(reporter)
        store = self.coordinator.services.store
        row = await store.rounds.round(round_id)
        if row is None:
            raise ProtocolError(ProblemType.UNKNOWN_ROUND, "there is no such round")
        if any(known.envelope == received for known in row.evaluations):
            return
        check_report(report, await self._candidate(row, reporter))
        evaluation = EvaluationRow(
            client_id=reporter,
            envelope=received,
            loss_before=report.loss_before,
            loss_after=report.loss_after,
            rows=report.rows,
            tokens=report.tokens,
            received_at=unix_seconds(self.doorkeeper.clock()),
        )
        await store.candidates.report(round_id, evaluation)
        figures = {"loss_before": report.loss_before, "loss_after": report.loss_after, "rows": report.rows}
        log.info("an evaluator has reported", extra={"task": row.task_id, "round": row.round_no, **figures})
        self.coordinator.bell_of(row.task_id).ring()

    @property
    def _context(self) -> bytes:
        return federation_context(self.doorkeeper.federation_id)

    async def _require_evaluator(self, client: ClientId) -> None:
        if client not in await self.coordinator.services.store.candidates.evaluators():
            raise SecurityError(
                ProblemType.POLICY_REFUSED,
                "this device is no evaluator of the federation",
                fix=f"fedit-server evaluator add {client[:12]}",
            )

    async def _newest(self, task_id: TaskId, reader: ClientId, after: int) -> bytes:
        services = self.coordinator.services
        row = await services.store.rounds.newest_step(task_id, after)
        if row is None:
            raise ProtocolError(ProblemType.NOT_READY, f"no round after {after} has made a step yet")
        return seal(services.identity.keys.server, Kind.CANDIDATE, self._context, await self._candidate(row, reader))

    async def _candidate(self, row: RoundRow, reader: ClientId) -> Candidate:
        """Return what a round has made; raises ProtocolError: round-failed, not-ready."""
        version, digest, parent_digest, public = await self._step(row)
        services = self.coordinator.services
        before = await services.store.tasks.adapter(row.task_id, version - 1)
        task = await self.coordinator.services.store.tasks.task(row.task_id)
        if task is None:
            raise ProtocolError(ProblemType.UNKNOWN_TASK, f"there is no task {row.task_id}")
        return Candidate(
            task_id=row.task_id,
            task_digest=task.document.digest,
            round_id=row.round_id,
            round_no=row.round_no,
            adapter_version=version,
            adapter_digest=digest,
            parent_digest=parent_digest,
            state=CandidateState(row.state),
            reported=any(evaluation.client_id == reader for evaluation in row.evaluations),
            adapter_state=await state_ref(services.blobs, public),
            parent_state=await state_ref(services.blobs, before.public_digest),
        )

    async def _step(self, row: RoundRow) -> tuple[int, Digest, Digest, str]:
        """Return the version that a round has made, its digest and its parent's, and that of its public state."""
        if row.state is RoundState.HELD and row.candidate is not None:
            made_here = row.candidate
            return made_here.version, made_here.digest, made_here.parent_digest, made_here.public_digest
        if row.state is RoundState.COMMITTED:
            versions = await self.coordinator.services.store.tasks.adapters(row.task_id)
            # The oldest: a rollback repeats the content of a round under a later number.
            made = next(version for version in versions if version.round_no == row.round_no)
            return made.version, made.digest, Digest(made.parent_digest), made.public_digest
        if row.state is RoundState.FAILED:
            raise ProtocolError(ProblemType.ROUND_FAILED, row.reason)
        raise ProtocolError(ProblemType.NOT_READY, "the round is still running")
