"""The Trainer that people get: a worker process does the work, is paused, and is started again after a crash.

Rows and update go through its pipes, never to disk. A run of training is kept in a private folder while it lasts: the
adapter as far as it is, and the optimizer's memory.
"""

import asyncio
import math
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.history import MachineHistory
from fedit_client.hardware.plan import DeviceUse
from fedit_client.training.channel import PAUSE, PAUSED, RESUME, SPEED, WIRE_FLOAT
from fedit_client.training.descent import Descent
from fedit_client.training.pause import PauseSignal
from fedit_client.training.place import kept_for_one_run
from fedit_client.training.process import Json, Worker, WorkerDiedError, started
from fedit_client.training.request import LocalResult, OnProgress, TrainingProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import to_base64url
from fedit_protocol.errors import DeviceError

_WORKER: Final = "fedit_client.training.worker"
_MOST_RESTARTS: Final = 2
_GOES_ON: Final = {True: "it goes on from its last checkpoint", False: "it begins again"}


class WorkerTrainer:
    """Trains in a process of its own, which is gone afterwards."""

    scores_canary = True
    measures_start = True

    def __init__(
        self,
        checkpoints: Path | None = None,
        *,
        every_s: float = 30.0,
        hold_s: float = 60.0,
        history: MachineHistory | None = None,
        give_way: bool = True,
    ) -> None:
        """Say where runs are kept while they last, how often at most, and after how long a pause the process ends.

        Without a folder nothing is kept: a crash starts the run again, and a pause never ends the process. `history`
        is told what a run took, and which rung of the ladder the device stands on. The process gives way to
        everything else on the machine, unless told not to.
        """
        self._give_way = give_way
        self._checkpoints, self._every_s = checkpoints, every_s
        self._hold_s = hold_s if checkpoints else math.inf
        self._descent = Descent(history)

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train and return the update; the worker is killed on cancellation.

        A pause, and up to two crashes of the worker, cost time and change nothing: on a CPU not a bit of the update.
        Where memory runs out, the run goes on one rung lower on the ladder, and a note of progress says so.

        Raises DataError D012 (no row can be trained on), DeviceError H003 (memory), H004 (the worker crashed again and
        again), H010 (training diverged), ModelError (the base cannot be loaded), TaskRefusedError (its layout differs).
        """
        begun = time.monotonic()
        request = self._descent.begun(request)
        with kept_for_one_run(self._checkpoints) if self._checkpoints else nullcontext() as file:
            return await self._insist(request, on_progress, file, begun)

    async def _insist(
        self, request: TrainingRequest, on_progress: OnProgress, file: Path | None, begun: float
    ) -> LocalResult:
        """Start a worker, and another one after a crash or a long pause."""
        restarts = 0
        while True:
            await request.pause.until_resumed()
            try:
                found = await self._once(request, on_progress, file)
            except DeviceError as error:
                restarts += 1
                if isinstance(error, WorkerDiedError) and restarts <= (1 if error.code == "H003" else _MOST_RESTARTS):
                    on_progress(TrainingProgress("restart", 0, 1, note=f"{error}; {_GOES_ON[file is not None]}"))
                    continue
                # Killed once it may have been by anybody's hand; killed twice, or by its own word, for want of memory.
                request, restarts = self._descent.again(request, error, on_progress), 0
            else:
                if found is not None:
                    message, update = found
                    result = result_of(message, update, time.monotonic() - begun)
                    self._descent.done(request, result)
                    return result

    async def _once(
        self, request: TrainingRequest, on_progress: OnProgress, file: Path | None
    ) -> tuple[Json, Vector] | None:
        """Return what one worker has found, or None if a pause outlasted it."""
        async with started(_WORKER, request.plan, request.base) as worker:
            speed = request.pause.speed
            manners = {"speed": speed, "give_way": self._give_way}
            kept = {"checkpoint": str(file or ""), "every_s": self._every_s}
            await worker.send({**message_of(request), **kept, **manners})
            stage = _Stage()
            listening = asyncio.create_task(_listen(worker, request, on_progress, stage))
            pausing = asyncio.create_task(self._pass_on(request.pause, worker, stage))
            slowing = asyncio.create_task(_pass_on_speed(request.pause, worker, speed))
            try:
                await asyncio.wait({listening, pausing}, return_when=asyncio.FIRST_COMPLETED)
                return listening.result() if listening.done() else pausing.result()
            finally:
                listening.cancel()
                pausing.cancel()
                slowing.cancel()
                await asyncio.gather(listening, pausing, slowing, return_exceptions=True)

    async def _pass_on(self, pause: PauseSignal, worker: Worker, stage: "_Stage") -> None:
        """Pass pauses on to the worker; return when it is to end, since one lasts long and nothing would be lost."""
        while True:
            await pause.until_paused()
            worker.post({"kind": PAUSE})
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(self._hold_s) else self._hold_s):
                    await pause.until_resumed()
            if pause.reason:
                # What it has done since its last checkpoint would be lost: it saves, and says so, after its step.
                await stage.until_idle(pause)
                if pause.reason:
                    return
            worker.post({"kind": RESUME})


async def _pass_on_speed(pause: PauseSignal, worker: Worker, known: float) -> None:
    """Tell the worker each new speed."""
    while True:
        known = await pause.until_other_speed(known)
        worker.post({"kind": SPEED, "share": known})


class _Stage:
    """How far a worker is, as its lines tell."""

    def __init__(self) -> None:
        self._idle = asyncio.Event()
        self._idle.set()

    def tell(self, kind: str, stage: str = "") -> None:
        """Take a line's kind and stage: a step of training is not idle, a pause and everything before is."""
        if kind == PAUSED or stage != "train":
            self._idle.set()
        else:
            self._idle.clear()

    async def until_idle(self, pause: PauseSignal) -> None:
        """Wait until nothing is lost with the worker, or until the pause is over."""
        waiting = [asyncio.create_task(self._idle.wait()), asyncio.create_task(pause.until_resumed())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


async def _listen(
    worker: Worker, request: TrainingRequest, on_progress: OnProgress, stage: _Stage
) -> tuple[Json, Vector]:
    """Pass on what the worker tells until it has a result."""
    while (message := await worker.receive())["kind"] in {"progress", PAUSED}:
        stage.tell(message["kind"], message.get("stage", ""))
        if message["kind"] == "progress":
            on_progress(progress(message))
    return message, await received_update(worker, message, request.document.layout.size)


def progress(message: Json) -> TrainingProgress:
    """Return the progress that a worker's line tells."""
    use = DeviceUse(**message["use"]) if message.get("use") else None
    return TrainingProgress(**{**{key: value for key, value in message.items() if key != "kind"}, "use": use})


def plan_values(plan: DevicePlan) -> Json:
    """Return a plan as plain values, for the worker's pipe."""
    return asdict(plan)


def record_values(records: Iterable[Record]) -> list[Json]:
    """Return records as plain values, for the worker's pipe."""
    return [record.to_json() for record in records]


def message_of(request: TrainingRequest) -> Json:
    """Return a request as plain values, for the worker's pipe."""
    return {
        "document": request.document.model_dump(mode="json"),
        "base": str(request.base),
        "global_adapter": str(request.global_adapter),
        "records": record_values(request.records),
        "seed": to_base64url(request.seed),
        "split_seed": to_base64url(request.split_seed),
        "plan": plan_values(request.plan),
        "canary": request.canary,
        "version": request.version,
        "public": str(request.public or ""),
        "own": str(request.own or ""),
    }


async def received_update(worker: Worker, message: Json, size: int) -> Vector:
    """Read the update and hold it against what was asked for: a worker is another program."""
    expected = size * np.dtype(WIRE_FLOAT).itemsize
    # Looked at before it is read, so that nothing is waited for that will not come.
    raw = await worker.receive_bytes(expected) if message.get("bytes") == expected else b""
    update = np.frombuffer(raw, dtype=WIRE_FLOAT).astype(np.float32)
    if update.shape != (size,) or not np.isfinite(update).all():
        raise DeviceError("the training process returned an unusable update", code="H004")
    return update


def result_of(message: Json, update: Vector, seconds: float) -> LocalResult:
    """Return the result that a worker's line tells; `seconds` as the caller counts them."""
    return LocalResult(
        update=update,
        examples=message["examples"],
        tokens=message["tokens"],
        train_loss=message["train_loss"],
        held_out_loss=message["held_out_loss"],
        held_out_loss_after=message["held_out_loss_after"],
        seconds=seconds,
        cut_rows=message["cut_rows"],
        skipped_rows=message["skipped_rows"],
        tokens_per_second=message.get("tokens_per_second", 0.0),
        peak_bytes=message.get("peak_bytes", 0),
        canary_loss=message.get("canary_loss"),
        steps=message.get("steps", 0),
        personal_loss=message.get("personal_loss"),
        statistics=message.get("statistics", {}),
    )
