"""The Trainer that people get: the work happens in a worker process, rows go through its pipe and never to disk."""

import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from fedit_client.data import Record
from fedit_client.device import DevicePlan
from fedit_client.training.process import Json, started
from fedit_client.training.request import LocalResult, OnProgress, TrainingProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import to_base64url
from fedit_protocol.errors import DeviceError

_WORKER: Final = "fedit_client.training.worker"
_UPDATE_FILE: Final = "update.npy"


class WorkerTrainer:
    """Trains in a process of its own, one per call; the process and its private folder are gone afterwards."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train and return the update; the worker is killed on cancellation.

        Raises DataError D012 (no row can be trained on), DeviceError H003 (memory), H004 (the worker crashed),
        H010 (training diverged), ModelError (the base cannot be loaded), TaskRefusedError (its layout differs).
        """
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fedit-train-") as folder:  # 0700 by mkdtemp
            update = Path(folder) / _UPDATE_FILE
            async with started(_WORKER, request.plan, request.base) as worker:
                await worker.send(_message(request, update))
                while (message := await worker.receive())["kind"] == "progress":
                    on_progress(progress(message))
            return _result(message, _load(update, request.document.layout.size), time.monotonic() - begun)


def progress(message: Json) -> TrainingProgress:
    """Return the progress that a worker's line tells."""
    return TrainingProgress(**{key: value for key, value in message.items() if key != "kind"})


def plan_values(plan: DevicePlan) -> Json:
    """Return a plan as plain values, for the worker's pipe."""
    return asdict(plan)


def record_values(records: Iterable[Record]) -> list[Json]:
    """Return records as plain values, for the worker's pipe."""
    return [record.to_json() for record in records]


def _message(request: TrainingRequest, update: Path) -> Json:
    return {
        "document": request.document.model_dump(mode="json"),
        "base": str(request.base),
        "global_adapter": str(request.global_adapter),
        "records": record_values(request.records),
        "seed": to_base64url(request.seed),
        "split_seed": to_base64url(request.split_seed),
        "plan": plan_values(request.plan),
        "update": str(update),
    }


def _load(path: Path, size: int) -> Vector:
    """Read the update and hold it against what was asked for: a worker is another program."""
    update = np.load(path, allow_pickle=False)
    if update.dtype != np.float32 or update.shape != (size,) or not np.isfinite(update).all():
        raise DeviceError("the training process returned an unusable update", code="H004")
    return np.asarray(update, dtype=np.float32)


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
