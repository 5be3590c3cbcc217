"""Several runs, in this process or in several: each is claimed by a lock, and none begins that cannot end in time."""

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedit_client.home.lock import held_alone, is_held
from fedit_protocol.errors import FeditError, MembershipError
from fedit_protocol.task import Task
from fedit_protocol.task_tables import MethodName

from .data import PUBLISHED, many_of
from .plan import NO_DIGEST, Profile, Run
from .runner import RESULT, Bench

_DOLLY_ROWS = 15_000
_ROWS_FOR_NOTHING = {"cpu": 2, "cuda": 24}
"""Rows of a step that take hardly longer than one: a GPU waits for Python until there are about as many."""


@dataclass
class Pace:
    """What a run will take, learned from those before it."""

    fixed_s: float = 0.0
    per_step_s: float = 0.0

    def learn(self, steps: float, seconds: float) -> None:
        """Take in a run: one without steps tells what measuring takes."""
        if not steps:
            self.fixed_s = max(self.fixed_s, seconds)
        else:
            self.per_step_s = max(0.8 * self.per_step_s, (seconds - self.fixed_s) / steps, 0.001)

    def seconds(self, steps: float) -> float:
        """Return what a run is expected to take."""
        return self.fixed_s + steps * self.per_step_s


@dataclass
class Shift:
    """One process's work on a list of runs until a time (seconds since 1970; 0 means no end)."""

    bench: Bench
    runs: Sequence[Run]
    until: float = 0.0
    pace: Pace = field(default_factory=Pace)

    def work(self) -> None:
        """Do what nobody else does; a run that fails is told and left, the next ones go on."""
        for run in self.runs:
            if (self.bench.out / "runs" / run.name / RESULT).is_file():
                continue
            try:
                steps = steps_of(run, self.bench.profile, self.bench.plan.kind)
            except FeditError as error:
                print(f"  {run.name}: {error}", file=sys.stderr, flush=True)
                continue
            if self.until and time.time() + self.pace.seconds(steps) > self.until:
                continue
            with claimed(self.bench.out / "runs" / run.name / ".claim") as mine:
                if mine and not (self.bench.out / "runs" / run.name / RESULT).is_file():
                    self._do(run, steps)

    def _do(self, run: Run, steps: float) -> None:
        begun = time.monotonic()
        try:
            self.bench.result(run)
        except FeditError as error:
            print(f"  {run.name}: {error}", file=sys.stderr, flush=True)
            return
        except Exception:  # noqa: BLE001 - hours of other runs must not be lost with this one
            traceback.print_exc()
            return
        taken = time.monotonic() - begun
        self.pace.learn(steps, taken)
        print(f"  {run.name}  {taken:.1f} s", flush=True)


@contextmanager
def claimed(lock: Path) -> Generator[bool]:
    """Say whether this process may do a run; the claim ends with the process, however it ends."""
    if is_held(lock):
        yield False
        return
    try:
        held = held_alone(lock)
        held.__enter__()
    except MembershipError:
        yield False
        return
    try:
        yield True
    finally:
        held.__exit__(None, None, None)


def in_processes(arguments: Sequence[str], count: int) -> None:
    """Start this program so many times as a worker on the same folder, and wait for all."""
    command = [sys.executable, "-m", "examples.fedit_paper", *arguments, "--worker"]
    workers = [subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(count)]
    try:
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.terminate()


def steps_of(run: Run, profile: Profile, kind: str) -> float:
    """Return a run's optimizer steps, those with many rows counted as several: what its time is in proportion to."""
    if run.row.kind in ("base", "check"):
        return 0.0
    task = run.task(profile, NO_DIGEST)
    clients = _clients(run.row.partition or profile.partition)
    cohort = 1 if run.row.kind == "central" or run.client is not None else int(run.row.choose.get("count", clients))
    if not isinstance(run.row.clients, str):
        cohort = min(cohort, len(run.row.clients))
    return task.round.rounds * cohort * _local_steps(task, _DOLLY_ROWS / clients) * _weight(task, kind)


def _clients(partition: str) -> int:
    return 10 if partition in PUBLISHED else many_of(partition.partition(" + ")[0])[0]


def _local_steps(task: Task, rows: float) -> float:
    steps = task.training.local_steps or task.training.epochs * rows / task.training.batch_size
    return steps * (2 if task.method.name is MethodName.DITTO else 1)


def _weight(task: Task, kind: str) -> float:
    return max(1.0, task.training.batch_size / _ROWS_FOR_NOTHING["cpu" if kind == "cpu" else "cuda"])
