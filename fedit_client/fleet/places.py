"""Where a fleet trains: a few processes that each hold one base, on this machine or, through Ray, on others."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fedit_client.config import ClientConfig
from fedit_client.fleet.settings import FleetSettings
from fedit_client.hardware.device import DevicePlan, Machine
from fedit_client.hardware.estimate import estimate
from fedit_client.membership.offers import TaskOffer
from fedit_client.rounds.preparation import Preparation, check_training_stack, cpu_needs_a_yes
from fedit_client.training import Trainer
from fedit_client.training.shared import SharedTrainer
from fedit_protocol.collusion import MAX_COHORT
from fedit_protocol.errors import FleetError
from fedit_protocol.task import TaskDocument

_CLIENT_BYTES: Final = 1_500_000
"""A virtual client that waits: its session, its connection, its rows."""

_VECTORS: Final = 3
"""Vectors of the adapter's size, 4 bytes a number, that a client holds at most in a round: update, message, masked."""


@dataclass(frozen=True)
class TrainingPlaces:
    """Trainers that clients share, each with `ahead` requests at once; the base that they hold, and how they train."""

    places: Sequence[Trainer]
    base: Path
    plan: DevicePlan


OpenPlaces = Callable[[TaskOffer], AbstractAsyncContextManager[TrainingPlaces]]
"""The seam between a fleet and its training: opened once the task is known, closed when the fleet ends."""


@dataclass(frozen=True)
class MemoryNeeds:
    """What a fleet takes of a machine, in bytes: the training processes together, and the clients together."""

    processes: int
    clients: int

    @property
    def total(self) -> int:
        """Both."""
        return self.processes + self.clients


def memory_needs(document: TaskDocument, plan: DevicePlan, settings: FleetSettings) -> MemoryNeeds:
    """Return what a fleet takes of main memory: each process holds one base, a client a few vectors in a round."""
    # A GPU's processes hold the base there, and little here.
    process = estimate(document, plan).total if plan.kind == "cpu" else estimate(document, plan).overhead
    policy = document.task.round
    in_round = min(settings.clients, policy.most_clients, MAX_COHORT * policy.cohorts)
    clients = settings.clients * _CLIENT_BYTES + in_round * _VECTORS * 4 * document.layout.size
    return MemoryNeeds(process * settings.processes, clients)


def check_memory(document: TaskDocument, plan: DevicePlan, settings: FleetSettings, free_bytes: int) -> MemoryNeeds:
    """Return what the fleet takes; raises FleetError F006 if this machine has not that much."""
    needs = memory_needs(document, plan, settings)
    if needs.total > free_bytes:
        raise FleetError(
            f"the fleet needs {_gb(needs.total)} of memory and {_gb(free_bytes)} are free: {_gb(needs.processes)} for "
            f"{settings.processes} training processes with a base each, {_gb(needs.clients)} for {settings.clients} "
            "clients",
            code="F006",
            fix="fedit-client fleet, with fewer --processes, fewer --clients or a smaller --cohort",
        )  # fmt: skip
    return needs


def place_plans(plan: DevicePlan, processes: int) -> list[DevicePlan]:
    """Return a plan for each training process: a GPU of its own, or its share of this machine's threads."""
    if processes == 1:
        return [replace(plan, others=())]
    devices = (plan.device, *plan.others)
    threads = max(1, plan.threads // processes) if plan.kind == "cpu" and not plan.others else plan.threads
    return [
        replace(plan, device=devices[number % len(devices)], threads=threads, others=()) for number in range(processes)
    ]


def plan_for(offer: TaskOffer, config: ClientConfig, settings: FleetSettings) -> DevicePlan:
    """Return how the fleet trains here, one core left to its protocol work; raises DeviceError."""
    device = config.device.model_copy(
        update={
            "prefer": settings.device if settings.device != "auto" else config.device.prefer,
            "processes": settings.processes,
            "threads": settings.threads * settings.processes or config.device.threads or _training_threads(),
        }
    )
    plan = Preparation(config.model_copy(update={"device": device}), offer.document).plan(Machine.here())
    if plan.cpu_fix and plan.needs_cpu_consent:  # there is a GPU that cannot be used: never silently the CPU
        raise cpu_needs_a_yes(plan)
    return plan


def _training_threads() -> int:
    """All cores but one: masks, signatures and TLS of all clients need that one while others train."""
    return max(1, (os.cpu_count() or 2) - 1)


@asynccontextmanager
async def own_places(offer: TaskOffer, config: ClientConfig, settings: FleetSettings, say: Callable[[str], None],
                     base: Path) -> AsyncIterator[TrainingPlaces]:  # fmt: skip
    """Open the training processes of this machine; they load the base when they are warmed."""
    check_training_stack(config.device)
    plan = plan_for(offer, config, settings)
    needs = check_memory(offer.document, plan, settings, Machine.here().free_bytes)
    plans = place_plans(plan, settings.processes)
    say(f"{len(plans)} training process{'es' * (len(plans) > 1)} with {plans[0].threads} threads each on "
        f"{', '.join(sorted({one.device for one in plans}))}: {plan.reason}")  # fmt: skip
    say(f"memory: {_gb(needs.processes)} for training, {_gb(needs.clients)} for {settings.clients} virtual clients "
        f"({needs.clients / settings.clients / 1e6:.1f} MB each)")  # fmt: skip
    async with AsyncExitStack() as stack:
        if settings.ray:
            from fedit_client.fleet.on_ray import ray_places

            places: Sequence[Trainer] = await stack.enter_async_context(ray_places(plans, offer.document, base))
            yield TrainingPlaces(places, base, plan)
            return
        shared = [await stack.enter_async_context(SharedTrainer(one)) for one in plans]
        for trainer in shared:
            trainer.begin(offer.document, base)
        yield TrainingPlaces(shared, base, plan)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
