"""The Trainer that people get: a worker process does the work; rows and update go through its pipes, never to disk."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

import numpy as np

from fedit_client.data import Record
from fedit_client.device import DevicePlan
from fedit_client.training.channel import WIRE_FLOAT
from fedit_client.training.process import Json, Worker, started
from fedit_client.training.request import LocalResult, OnProgress, TrainingProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import to_base64url
from fedit_protocol.errors import DeviceError

_WORKER: Final = "fedit_client.training.worker"


class WorkerTrainer:
    """Trains in a process of its own, one per call, gone afterwards."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train and return the update; the worker is killed on cancellation.

        Raises DataError D012 (no row can be trained on), DeviceError H003 (memory), H004 (the worker crashed),
        H010 (training diverged), ModelError (the base cannot be loaded), TaskRefusedError (its layout differs).
        """
        begun = time.monotonic()
        async with started(_WORKER, request.plan, request.base) as worker:
            await worker.send(_message(request))
            while (message := await worker.receive())["kind"] == "progress":
                on_progress(progress(message))
            update = await _update(worker, message, request.document.layout.size)
        return _result(message, update, time.monotonic() - begun)


def progress(message: Json) -> TrainingProgress:
    """Return the progress that a worker's line tells."""
    return TrainingProgress(**{key: value for key, value in message.items() if key != "kind"})


def plan_values(plan: DevicePlan) -> Json:
    """Return a plan as plain values, for the worker's pipe."""
    return asdict(plan)


def record_values(records: Iterable[Record]) -> list[Json]:
    """Return records as plain values, for the worker's pipe."""
    return [record.to_json() for record in records]


def _message(request: TrainingRequest) -> Json:
    return {
        "document": request.document.model_dump(mode="json"),
        "base": str(request.base),
        "global_adapter": str(request.global_adapter),
        "records": record_values(request.records),
        "seed": to_base64url(request.seed),
        "split_seed": to_base64url(request.split_seed),
        "plan": plan_values(request.plan),
    }


async def _update(worker: Worker, message: Json, size: int) -> Vector:
    """Read the update and hold it against what was asked for: a worker is another program."""
    expected = size * np.dtype(WIRE_FLOAT).itemsize
    # Looked at before it is read, so that nothing is waited for that will not come.
    raw = await worker.receive_bytes(expected) if message.get("bytes") == expected else b""
    update = np.frombuffer(raw, dtype=WIRE_FLOAT).astype(np.float32)
    if update.shape != (size,) or not np.isfinite(update).all():
        raise DeviceError("the training process returned an unusable update", code="H004")
    return update


def _result(message: Json, update: Vector, seconds: float) -> LocalResult:
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
    )
