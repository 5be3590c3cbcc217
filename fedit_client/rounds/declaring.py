"""What a device says of itself when it checks in, for tasks that draw by it: coarse, and only if its owner lets it."""

from collections.abc import Callable, Sequence
from typing import Final

from fedit_client.config import ClientConfig
from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.fit import rows_of
from fedit_client.hardware.history import MachineHistory
from fedit_client.hardware.speed import seconds_as_before, steps_in
from fedit_client.rounds.engagement import LocalWork
from fedit_protocol.coverage import own_domains
from fedit_protocol.declaration import Declaration
from fedit_protocol.selection import Declared
from fedit_protocol.task import Selection, Task, TaskDocument
from fedit_protocol.task_selection import DECLARED

Seconds = Callable[[Sequence[Record]], float | None]
Steps = Callable[[Sequence[Record]], int]

_LONGEST_S: Final = 2**20

IN_TIME: Final = 0.8
"""The share of a round's time for training and upload that a slow device plans with: no two rounds take as long."""


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


def own_pace(config: ClientConfig, document: TaskDocument, plan: DevicePlan) -> tuple[Seconds | None, Steps]:
    """Return what tells how long a round takes here, and what tells how many steps fit into its time."""
    return round_seconds(config, document, plan), steps_in_time(config, document, plan)


def steps_in_time(config: ClientConfig, document: TaskDocument, plan: DevicePlan) -> Steps:
    """Return what tells how many steps of such rows fit into a round here, 0 if all do, or nobody knows.

    Fewer steps are for tasks that count each device's own (FedNova): elsewhere they would weigh too little.
    """

    def known(records: Sequence[Record]) -> int:
        rows, run = rows_of(records), MachineHistory(config.paths.machine_file).run_of(document, plan)
        if not document.task.optimizer.fednova or run is None or rows is None:
            return 0
        seconds = IN_TIME * document.task.round.deadlines.upload_s
        fit = steps_in(document, plan, rows, run, seconds)
        return fit if fit < document.task.training.steps_of(rows.count) else 0

    return known


def round_seconds(config: ClientConfig, document: TaskDocument, plan: DevicePlan) -> Seconds | None:
    """Return what tells how long a round of such rows takes here, as the last one did; None: nothing is declared."""
    if not config.privacy.declare:
        return None

    def known(records: Sequence[Record]) -> float | None:
        run = MachineHistory(config.paths.machine_file).run_of(document, plan)
        return None if run is None else seconds_as_before(document, plan, rows_of(records), run)

    return known
