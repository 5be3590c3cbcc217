"""What a soak does, all of it drawn from the seed: when the server dies, where lines are cut, how devices behave.

The draws are the same for a seed, however often it is run. How they fall among the requests is left to the machine,
as with any two runs of real processes.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_protocol.ids import TaskId
from fedit_protocol.task import Task

from ..integration.cutting_proxy import Cut, Fault
from ..integration.federation import exact_task
from ..server.bases import make_base

LONG_POLL_S: Final = 20.0
"""How long the server holds a question; a device that hears nothing for longer takes its line for dead."""

_SIZES: Final = {"few": (3, 8), "many": (16, 64)}
_DEADLINES: Final = {"gather_s": 3.0, "join_s": 15.0, "shares_s": 20.0, "upload_s": 30.0, "unmask_s": 20.0}
_MEAN_BYTES: Final = (15_000, 200_000)


@dataclass(frozen=True)
class SoakPlan:
    """How long, with how many devices, from which seed."""

    minutes: float = 60.0
    devices: int = 500
    seed: str = "20261127"

    @property
    def lasts_s(self) -> float:
        """The run's length in seconds; enrolment comes before it, the checks come after it."""
        return 60.0 * self.minutes

    def lives(self) -> Iterator[float]:
        """Say how many seconds after it is ready the server is killed, life after life, for ever.

        One kill in five strikes a server that has hardly started again.
        """
        chance, mean_s = random.Random(f"{self.seed}/lives"), min(60.0, max(15.0, self.lasts_s / 20))
        while True:
            yield chance.uniform(1.0, 4.0) if chance.random() < 0.2 else mean_s * chance.uniform(0.4, 1.6)

    def kill_at(self, ready_s: float, life_s: float) -> float | None:
        """Return when to kill a server that was ready at `ready_s`, in seconds from the start; None to let it live.

        The middle third of a run is one long life, for what grows only in an old process.
        """
        at_s = ready_s + life_s
        if self.lasts_s / 3 < at_s < 2 * self.lasts_s / 3:
            at_s = 2 * self.lasts_s / 3 + life_s
        return at_s if at_s < self.lasts_s - 5 else None

    def cuts(self) -> Iterator[Cut]:
        """Say of each new connection where it ends, for ever: half of them soon, half after a round or so.

        None holds for good. Devices share and keep their lines, so unbroken ones would be all that is left in the end.
        """
        for number in range(2**63):
            chance = random.Random(f"{self.seed}/line/{number}")
            after = int(chance.expovariate(1 / chance.choice(_MEAN_BYTES)))
            (fault,) = chance.choices([Fault.CLOSED, Fault.RESET, Fault.SILENT], [0.48, 0.48, 0.04])
            yield Cut(after, chance.random() < 0.5, fault)

    def manners(self, device: int) -> random.Random:
        """Return what a device draws its delays, its choice of task and its deaths from."""
        return random.Random(f"{self.seed}/device/{device}")


def soak_tasks(folder: Path, devices: int) -> list[Task]:
    """Return two tasks on one base, 4,096 coordinates each: rounds of 3 to 8 and of 16 to 64, without end."""
    base, tasks = make_base(folder / "base"), []
    for name, (least, wanted) in _SIZES.items():
        most = min(wanted, max(3, devices // 4))
        policy: dict[str, object] = {"cohort_min": min(least, most), "rounds": 10_000, "max_failures": 1000}
        task = exact_task(base, most, deadlines=_DEADLINES, **policy)
        adapter = task.adapter.model_copy(update={"target_modules": ("q_proj",)})
        tasks.append(task.model_copy(update={"id": TaskId(name), "title": name, "adapter": adapter}))
    return tasks
