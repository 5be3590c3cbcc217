"""A Trainer whose process stays: many clients of one machine share one base, and take turns with their adapters.

`WorkerTrainer` starts a process for each round, as a device does that has other things to do. Here the process loads
the base once; the next request lies ready in it while one trains, so that it never waits for its parent.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.process import ERRORS, Json, Worker, WorkerDiedError, started
from fedit_client.training.request import LocalResult, OnProgress, TrainingProgress, TrainingRequest
from fedit_client.training.trainer import message_of, plan_values, progress, received_update, result_of
from fedit_protocol.errors import DeviceError, FeditError
from fedit_protocol.task import TaskDocument

_WORKER: Final = "fedit_client.training.shared_worker"
_MOST_DEATHS: Final = 2
"""Deaths of the process without a result in between, after which its callers are told."""


@dataclass
class _Call:
    """One request that somebody waits for."""

    message: Json
    size: int
    on_progress: OnProgress
    answer: "asyncio.Future[LocalResult | None]"


class SharedTrainer:
    """Trains any number of clients' requests, one after another in the order they come; use as a context manager."""

    scores_canary = True
    measures_start = True

    def __init__(self, plan: DevicePlan, *, give_way: bool = False) -> None:
        """Train under this plan; of the plan that a request names only its steps and its rank count. Nothing is started
        yet.

        `give_way` lowers the priority of the process below everything else on this machine.
        """
        self._plan, self._give_way = plan, give_way
        self._calls: dict[int, _Call] = {}
        self._worker: Worker | None = None
        self._living: asyncio.Task[None] | None = None
        self._number = 0
        self.train_s = 0.0
        """Seconds that the optimizer steps of all results so far have taken; loading and preparing are not in it."""

    async def __aenter__(self) -> "SharedTrainer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the process; who still waits for a result is cancelled."""
        if self._living is not None:
            self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)
            self._living = None
        for call in self._calls.values():
            call.answer.cancel()
        self._calls.clear()

    async def warm(self, document: TaskDocument, base: Path) -> None:
        """Load the base before the first request; raises ModelError, TaskRefusedError, DeviceError."""
        await self._asked({"kind": "warm", "document": document.model_dump(mode="json"), "base": str(base)}, base, 0,
                          lambda _: None)  # fmt: skip

    def begin(self, document: TaskDocument, base: Path) -> None:
        """Let the process load the base while its callers do other things; what fails is told to the first call."""
        message = {"kind": "warm", "document": document.model_dump(mode="json"), "base": str(base)}
        call = self._called(message, 0, lambda _: None)
        call.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        self._living = asyncio.create_task(self._live(base))

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train and return the update; cancelled, the run is broken off after its step.

        A pause holds a request back before it begins, and is not looked at later. Raises as `WorkerTrainer.train`,
        except that no rung of the ladder is tried: out of memory (H003) is told to everybody.
        """
        await request.pause.until_resumed()
        message = {"kind": "train", **message_of(request)}
        result = await self._asked(message, request.base, request.document.layout.size, on_progress)
        if result is None:
            raise RuntimeError("a request to train is answered with a result")
        return result

    def _called(self, message: Json, size: int, on_progress: OnProgress) -> _Call:
        self._number += 1
        answer = asyncio.get_running_loop().create_future()
        call = self._calls[self._number] = _Call({**message, "id": self._number}, size, on_progress, answer)
        return call

    async def _asked(self, message: Json, base: Path, size: int, on_progress: OnProgress) -> LocalResult | None:
        call = self._called(message, size, on_progress)
        number = call.message["id"]
        if self._living is None or self._living.done():
            self._living = asyncio.create_task(self._live(base))
        elif self._worker is not None:
            await self._worker.send(call.message)
        try:
            return await call.answer
        finally:
            self._calls.pop(number, None)
            if not call.answer.done() or call.answer.cancelled():
                self._tell_unwanted(number)

    def _tell_unwanted(self, number: int) -> None:
        if self._worker is not None:
            self._worker.post({"kind": "cancel", "id": number})

    async def _live(self, base: Path) -> None:
        """Keep a process running while there are calls; each start sends all that wait, in their order."""
        deaths = 0
        while True:
            answered = self.train_s
            try:
                await self._once(base)
            except WorkerDiedError as error:
                deaths = 1 if self.train_s > answered else deaths + 1
                if deaths < _MOST_DEATHS:
                    for call in self._calls.values():
                        call.on_progress(TrainingProgress("restart", 0, 1, note=f"{error}; it is started again"))
                    continue
                self._fail_all(error)
                return
            except FeditError as error:
                self._fail_all(error)
                return

    async def _once(self, base: Path) -> None:
        async with AsyncExitStack() as stack:
            worker = await stack.enter_async_context(started(_WORKER, self._plan, base))
            stack.callback(self._gone)
            await worker.send({"plan": plan_values(self._plan), "give_way": self._give_way})
            self._worker = worker
            for call in list(self._calls.values()):
                await worker.send(call.message)
            while True:
                await self._take(worker, await worker.receive())

    def _gone(self) -> None:
        self._worker = None

    async def _take(self, worker: Worker, message: Json) -> None:
        """Hand one of the worker's lines to who waits for it; nobody may, any more."""
        number = message.pop("id")
        call = self._calls.get(number)
        match message["kind"]:
            case "progress":
                if call is not None:
                    call.on_progress(progress(message))
            case "result":
                await self._take_result(worker, message, call)
            case "warm":
                if call is not None and not call.answer.done():
                    call.answer.set_result(None)
            case "failed":
                told = ERRORS.get(message["error"], DeviceError)(
                    message["message"], code=message["code"], where=message["where"], fix=message["fix"]
                )
                if call is not None and not call.answer.done():
                    call.answer.set_exception(told)

    async def _take_result(self, worker: Worker, message: Json, call: _Call | None) -> None:
        if message["tokens_per_second"]:
            self.train_s += message["tokens"] / message["tokens_per_second"]
        if call is None:
            await worker.receive_bytes(message["bytes"])
            return
        update = await received_update(worker, message, call.size)
        if not call.answer.done():
            # What this request took: how long it waited for others says nothing of a device of its own.
            call.answer.set_result(result_of(message, update, message["seconds"]))

    def _fail_all(self, error: FeditError) -> None:
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(error)
