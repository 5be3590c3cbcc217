"""The Store: one database, one room for each kind of thing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedit_server.storage.admissions import Admissions
from fedit_server.storage.approvals import Approvals
from fedit_server.storage.audit import AuditLog
from fedit_server.storage.candidates import Candidates
from fedit_server.storage.database import Database
from fedit_server.storage.key_log import KeyLog
from fedit_server.storage.lineages import Lineages
from fedit_server.storage.members import Members
from fedit_server.storage.place import Place
from fedit_server.storage.readings import Readings
from fedit_server.storage.retention import Retentions
from fedit_server.storage.round_orders import RoundOrders
from fedit_server.storage.rounds import Rounds
from fedit_server.storage.sights import Sights
from fedit_server.storage.suspicions import Suspicions
from fedit_server.storage.task_records import TaskRecords
from fedit_server.storage.tasks import Tasks
from fedit_server.storage.tokens import Tokens
from fedit_server.storage.webhooks import Webhooks


@dataclass(frozen=True)
class Store:
    """Everything that is remembered, in domain verbs."""

    members: Members
    admissions: Admissions
    key_log: KeyLog
    tasks: Tasks
    rounds: Rounds
    candidates: Candidates
    suspicions: Suspicions
    readings: Readings
    tokens: Tokens
    audit: AuditLog
    records: TaskRecords
    orders: RoundOrders
    retentions: Retentions
    lineages: Lineages
    webhooks: Webhooks
    approvals: Approvals
    sights: Sights
    database: Database

    @classmethod
    async def open(cls, place: Place | Path, *, migrate: bool) -> Self:
        """Open a database, or the SQLite file at a path; a server migrates it, a command expects it to be current."""
        return cls.over(await Database.open(place, migrate=migrate))

    @classmethod
    def over(cls, database: Database) -> Self:
        """Return the store of an open database."""
        log = KeyLog(database)
        members, admissions = Members(database, log), Admissions(database)
        rooms = Tasks(database), Rounds(database), Candidates(database), Suspicions(database), Readings(database)
        said = Tokens(database), AuditLog(database), TaskRecords(database), RoundOrders(database), Retentions(database)
        return cls(
            members,
            admissions,
            log,
            *rooms,
            *said,
            Lineages(database),
            Webhooks(database),
            Approvals(database),
            Sights(database),
            database,
        )

    async def close(self) -> None:
        """Write down what is still to be written, and close every connection."""
        await self.sights.settle()
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
