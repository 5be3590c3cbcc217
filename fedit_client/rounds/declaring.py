"""What a device says of itself when it checks in, for tasks that draw by it: coarse, and only if its owner lets it."""

from collections.abc import Callable, Sequence
from typing import Final

from fedit_client.config import ClientConfig
from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.fit import rows_of
from fedit_client.hardware.history import MachineHistory
from fedit_client.hardware.speed import seconds_as_before
from fedit_client.rounds.engagement import LocalWork
from fedit_protocol.coverage import own_domains
from fedit_protocol.declaration import Declaration
from fedit_protocol.selection import Declared
from fedit_protocol.task import Selection, Task, TaskDocument
from fedit_protocol.task_selection import DECLARED

_LONGEST_S: Final = 2**20


def declaration(task: Task, work: LocalWork) -> Declaration | None:
    """Return what a check-in to this task carries; None if the task does not draw by it, or there is nothing to say."""
    rule = task.round.selection
    if rule not in DECLARED or work.round_s is None:
        return None
    speed = Declared(round_s=work.round_s(work.records)).speed
    seconds = None if speed is None else min(2**speed, _LONGEST_S)
    # How long it takes is all that a task asks that draws by time alone.
    categories = (record.category for record in work.records)
    told = tuple(sorted(own_domains(task, categories))) if rule is Selection.STRATIFIED else ()
    return Declaration(domains=told, round_s=seconds) if told or seconds else None


def round_seconds(
    config: ClientConfig, document: TaskDocument, plan: DevicePlan
) -> Callable[[Sequence[Record]], float | None] | None:
    """Return what tells how long a round of such rows takes here, as the last one did; None: nothing is declared."""
    if not config.privacy.declare:
        return None

    def known(records: Sequence[Record]) -> float | None:
        run = MachineHistory(config.paths.machine_file).run_of(document, plan)
        return None if run is None else seconds_as_before(document, plan, rows_of(records), run)

    return known
