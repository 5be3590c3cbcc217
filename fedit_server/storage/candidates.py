"""Held steps: what the operator decided about them, who may evaluate them, and what was reported."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, Digest, RoundId
from fedit_server.storage.database import Database
from fedit_server.storage.rows import CandidateRow, ClientState, Decision, EvaluationRow, RoundState
from fedit_server.storage.tables import candidates, clients, evaluations, evaluators, rounds


class Candidates:
    """The decisions, evaluators and evaluations of one federation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def decide(self, round_id: RoundId, decision: Decision, note: str) -> bool:
        """Write down what the operator wants; the server carries it out. False if the round is not held any more."""
        async with self._database.writing() as db:
            held = select(rounds.c.round_id).where(rounds.c.round_id == round_id, rounds.c.state == RoundState.HELD)
            here = candidates.c.round_id.in_(held) & (candidates.c.decision == Decision.NONE)
            changed = await db.execute(update(candidates).where(here).values(decision=decision, note=note))
        return bool(changed.rowcount)

    async def appoint(self, client: ClientId, now_s: int) -> None:
        """Let a device evaluate candidates; again changes nothing."""
        async with self._database.writing() as db:
            known = await db.execute(select(evaluators).where(evaluators.c.client_id == client))
            if known.first() is None:
                await db.execute(insert(evaluators).values(client_id=client, appointed_at=now_s))

    async def dismiss(self, client: ClientId) -> None:
        """Let a device evaluate no more; its reports stay."""
        async with self._database.writing() as db:
            await db.execute(delete(evaluators).where(evaluators.c.client_id == client))

    async def evaluators(self) -> frozenset[ClientId]:
        """Return who may evaluate: the devices that were appointed and are still enrolled."""
        async with self._database.reading() as db:
            active = select(clients.c.client_id).where(clients.c.state == ClientState.ACTIVE)
            found = await db.execute(select(evaluators.c.client_id).where(evaluators.c.client_id.in_(active)))
            return frozenset(ClientId(client) for client in found.scalars())

    async def report(self, round_id: RoundId, evaluation: EvaluationRow) -> None:
        """Keep a report; the same bytes again change nothing, others raise ProtocolError (conflict)."""
        mine = (evaluations.c.round_id == round_id) & (evaluations.c.client_id == evaluation.client_id)
        async with self._database.writing() as db:
            known = (await db.execute(select(evaluations.c.envelope).where(mine))).scalar_one_or_none()
            if known is None:
                await db.execute(insert(evaluations).values(round_id=round_id, **asdict(evaluation)))
            elif known != evaluation.envelope:
                raise ProtocolError(ProblemType.CONFLICT, "this evaluator has already reported other figures")


def candidate_row(row: Row[Any]) -> CandidateRow:
    """Return the candidate behind a row of the table."""
    return CandidateRow(
        version=row.version,
        digest=Digest(row.digest),
        parent_digest=Digest(row.parent_digest),
        sums_done=row.sums_done,
        correction=row.correction,
        alarm=row.alarm,
        held_at=row.held_at,
        reports_until=row.reports_until,
        decision=Decision(row.decision),
        note=row.note,
        public_digest=row.public_digest,
        kept_digest=row.kept_digest,
    )


def evaluation_row(row: Row[Any]) -> EvaluationRow:
    """Return the evaluation behind a row of the table."""
    return EvaluationRow(
        client_id=ClientId(row.client_id),
        envelope=row.envelope,
        loss_before=row.loss_before,
        loss_after=row.loss_after,
        rows=row.rows,
        tokens=row.tokens,
        received_at=row.received_at,
    )
