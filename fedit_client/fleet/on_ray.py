"""Training places on several machines or GPUs through Ray (`pip install "fedit[sim]"`): the same requests, results and
turns as with processes of this machine; only who carries them differs. The one module that knows Ray.
"""

import asyncio
import importlib.util
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_client.hardware.device import DevicePlan
from fedit_client.records.own_part import own_files, write_own_files
from fedit_client.training import LocalResult, OnProgress, Trainer, TrainingRequest
from fedit_client.training.channel import WIRE_FLOAT
from fedit_client.training.hosted import HostedBase
from fedit_client.training.process import ERRORS
from fedit_client.training.trainer import message_of, plan_values
from fedit_protocol.errors import DeviceError, FleetError
from fedit_protocol.task import TaskDocument

ADDRESS: Final = "RAY_ADDRESS"
"""Ray's own variable: the cluster to join. Without it a small Ray is started on this machine."""

_TRIES: Final = 3
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True)
class RayPlace(Trainer):
    """One actor as a Trainer; what it is asked beyond one request waits in Ray.

    What a method keeps on each device from round to round goes along and comes back: machines need share no folder.
    """

    actor: Any
    scores_canary: bool = True
    measures_start: bool = True

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train on the actor's machine; a cancelled request is trained to its end, and thrown away.

        Raises DeviceError H004 where Ray's process ends, and what a trainer raises.
        """
        from ray.exceptions import RayError

        await request.pause.until_resumed()
        message = message_of(request)
        files = {"global_adapter": request.global_adapter, "public": request.public}
        contents = {name: await asyncio.to_thread(path.read_bytes) for name, path in files.items() if path is not None}
        own = None if request.own is None else await asyncio.to_thread(own_files, request.own)
        try:
            told, raw, written = await self.actor.train.remote(message, contents, own)
        except RayError as error:
            raise DeviceError("a training process of Ray has ended", code="H004", where=str(error)[:500],
                              fix="look at Ray's logs: ray logs") from error  # fmt: skip
        if "error" in told:
            kind = ERRORS.get(told.pop("error"), DeviceError)
            raise kind(told.pop("message"), **told)
        if request.own is not None:
            await asyncio.to_thread(write_own_files, request.own, written)
        return LocalResult(update=np.frombuffer(raw, dtype=WIRE_FLOAT).astype(np.float32), **told)


@asynccontextmanager
async def ray_places(
    plans: Sequence[DevicePlan], document: TaskDocument, base: Path
) -> AsyncIterator[Sequence[Trainer]]:
    """Open one actor for each plan, on the cluster that RAY_ADDRESS names or on a Ray of this machine's own.

    A plan's CPU threads, or one GPU, are what Ray keeps free for its actor. Raises FleetError F011 without Ray, F012 if
    the cluster has not that much.
    """
    if importlib.util.find_spec("ray") is None:
        raise FleetError("--ray needs Ray, which is not installed", code="F011", fix='pip install "fedit[sim]"')
    import ray

    own = ADDRESS not in os.environ
    cores = max(1, sum(plan.threads for plan in plans)) if own else None
    await asyncio.to_thread(_start, ray, own, cores)
    try:
        _check_resources(ray, plans)
        actors = [_actor(ray, plan, document, base) for plan in plans]
        yield [RayPlace(actor) for actor in actors]
        for actor in actors:
            ray.kill(actor)
    finally:
        await asyncio.to_thread(ray.shutdown)


def _start(ray: Any, own: bool, cores: int | None) -> None:
    """Start or join Ray. One of this machine's own is given more than one chance: it allows each of its processes 15 s,
    which they may well need where the files are not in memory yet, or others keep the machine busy."""
    quiet = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False if own else None}
    for tries_left in reversed(range(_TRIES if own else 1)):
        try:
            if not own:
                _check_there(os.environ[ADDRESS])
            ray.init(num_cpus=cores, **{name: value for name, value in quiet.items() if value is not None})
            return
        except Exception as error:  # Ray raises bare Exceptions where its own processes do not start
            if not tries_left:
                raise FleetError(f"Ray cannot be started or reached: {str(error).splitlines()[0]}", code="F012",
                                 where=os.environ.get(ADDRESS, "this machine"),
                                 fix="ray status, and the address in RAY_ADDRESS") from error  # fmt: skip


def _check_there(address: str) -> None:
    """Raise OSError if nobody listens at a cluster's HOST:PORT: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _PATIENCE_S).close()


def _check_resources(ray: Any, plans: Sequence[DevicePlan]) -> None:
    there = ray.cluster_resources()
    cores = sum(plan.threads for plan in plans)
    cards = sum(plan.kind != "cpu" for plan in plans)
    if there.get("CPU", 0) < cores or there.get("GPU", 0) < cards:
        raise FleetError(
            f"Ray has {there.get('CPU', 0):.0f} cores and {there.get('GPU', 0):.0f} GPUs, and {len(plans)} training "
            f"processes need {cores} and {cards}",
            code="F012",
            fix="fedit-client fleet, with fewer --processes or --threads",
        )  # fmt: skip


def _actor(ray: Any, plan: DevicePlan, document: TaskDocument, base: Path) -> Any:
    # Ray shows each actor the card that it was given as the first one.
    values = plan_values(plan) | ({"device": "cuda:0"} if plan.device.startswith("cuda") else {})
    options = {"num_cpus": plan.threads, "num_gpus": 0 if plan.kind == "cpu" else 1}
    made = ray.remote(HostedBase).options(**options)
    return made.remote(values, document.model_dump(mode="json"), str(base))
