"""What a fleet's rows give without a federation: clients alone, and all rows in one place, beside it on test rows."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from safetensors.numpy import save

from fedit_client.adapters.kept import TENSORS, newest_adapter, read_state
from fedit_client.data import Record, read_records
from fedit_client.evaluation.figures import MeasureRequest, WorkerMeasurer
from fedit_client.evaluation.results import ModelResult, Role, read_results, results_of, write_results
from fedit_client.evaluation.summary import summarise
from fedit_client.fleet.member import VirtualClient
from fedit_client.fleet.places import TrainingPlaces
from fedit_client.fleet.population import PARTITION
from fedit_client.fleet.settings import FleetSettings
from fedit_client.home.durable import write_atomic
from fedit_client.partition.writing import TEST
from fedit_client.simulation.learner import drawn
from fedit_client.task_groups import task_group
from fedit_client.training import OnProgress, Trainer, TrainingProgress, TrainingRequest
from fedit_protocol.adapter import first_adapter
from fedit_protocol.errors import FleetError
from fedit_protocol.peft_folder import CONFIG, config_bytes
from fedit_protocol.task import TaskDocument, TrainingSpec
from fedit_protocol.task_tables import MethodSpec

FOLDER: Final = "baselines"
RESULTS: Final = "evaluation.jsonl"
MOST_ALONE: Final = 10
"""Clients that are trained alone, where a fleet has more: drawn by its seed."""

MEASURED_TOKENS: Final = 512
"""Test rows are cut here, or at the task's cutoff where that is longer: a short one leaves whole categories out."""
_MOST_ROWS: Final = 4096
"""Behind one step, as in a task."""
_PUBLIC: Final = 0o644


class Baseline(StrEnum):
    """What a federation may be set beside."""

    LOCAL = "local"
    CENTRAL = "central"


def parse_baselines(text: str) -> tuple[Baseline, ...]:
    """Return what a list such as `local,central` names; raises FleetError F015 for other words."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = {baseline.value for baseline in Baseline}
    if other := next((word for word in words if word not in known), None):
        raise FleetError(f"there is no baseline {other}: there are {', '.join(sorted(known))}", code="F015",
                         where="--baselines", fix="fedit-client fleet --baselines local,central",
                         again="--baselines local,central")  # fmt: skip
    return tuple(Baseline(word) for word in dict.fromkeys(words))


def check_measurable(settings: FleetSettings) -> None:
    """Raise FleetError F015 for baselines without rows to measure on, or of another word."""
    if parse_baselines(settings.baselines) and not settings.test_rows:
        raise FleetError("baselines are compared on rows that no client has, and --test-rows 0 keeps none", code="F015",
                         where="--test-rows", fix="fedit-client fleet --baselines local,central --test-rows 10",
                         again="--test-rows 10")  # fmt: skip


@dataclass(frozen=True)
class Model:
    """One model that is trained without a federation: on whose rows, and how."""

    name: str
    role: Role
    records: Sequence[Record] = field(repr=False)
    spec: TrainingSpec


@dataclass(frozen=True)
class Baselines:
    """The comparison of one fleet that has ended; its models are folders that PEFT loads, under `baselines/`.

    Every model starts from the fleet's first adapter and takes as many steps as the fleet's rounds have one after
    another, with an optimizer that begins anew with each round, as a client's does. A client alone uses the rows of a
    client for a step, the central model those of a whole cohort. Both train on all of their rows: nothing is held out.
    """

    document: TaskDocument
    settings: FleetSettings
    folder: Path
    training: TrainingPlaces
    measurer: WorkerMeasurer = field(default_factory=WorkerMeasurer)
    say: Callable[[str], None] = lambda _: None

    async def train(self, clients: Sequence[VirtualClient], rounds: int) -> None:
        """Train what is asked for and not there yet, as many steps as so many committed rounds have.

        Raises FleetError F016 as `plain_document` does, and what training raises.
        """
        waiting = self.models(clients)
        if not waiting:
            return
        document = plain_document(self.document)
        async with task_group() as group:
            # Awaited in the block: what fails while a group is left looks like a cancellation in Python 3.11.
            await asyncio.wait(
                [group.create_task(self._train_all(place, waiting, document, rounds)) for place in self.training.places]
            )

    async def measure(self, clients: Sequence[VirtualClient]) -> list[ModelResult]:
        """Measure all models on the test rows, in a process of its own; keep and return the results, or those kept.

        Raises FleetError F016 for a fleet without an adapter, and what measuring raises.
        """
        kept, models = self.folder / RESULTS, self.models(clients)
        found = {one.name: one for one in read_results([kept])} if kept.exists() else {}
        names = ["base", "federation", *(model.name for model in models)]
        if found.keys() >= set(names):
            return [found[name] for name in names]
        results = await self._measured(models)
        await asyncio.to_thread(write_results, kept, results)
        for line in summarise(results).lines():
            self.say(line)
        return results

    def models(self, clients: Sequence[VirtualClient]) -> list[Model]:
        """Return what is to be trained: the central model first, which takes longest."""
        wanted, training = parse_baselines(self.settings.baselines), self.document.task.training
        found: list[Model] = []
        if Baseline.CENTRAL in wanted:
            every = [record for client in clients for record in client.records]
            cohort = min(len(clients), self.document.task.round.most_clients, _MOST_ROWS // training.batch_size)
            steps = training.steps_of(len(every) // len(clients))
            spec = {"batch_size": training.batch_size * cohort, "local_steps": steps, "max_steps": 0}
            found.append(Model("central", "central", every, training.model_copy(update=spec)))
        if Baseline.LOCAL in wanted:
            chosen = drawn_clients(clients, self.settings.seed)
            found += [Model(f"alone-{one.name}", "local", one.records, training) for one in chosen]
        return found

    async def _train_all(self, place: Trainer, waiting: list[Model], document: TaskDocument, rounds: int) -> None:
        while waiting:
            await self._train(place, waiting.pop(0), document, rounds)

    async def _train(self, place: Trainer, model: Model, document: TaskDocument, rounds: int) -> None:
        """Train one model, going on after its newest round that is kept; the PEFT folder's configuration ends it."""
        folder = self.folder / FOLDER / model.name
        if (folder / CONFIG).exists():
            return
        spec = model.spec.model_copy(update={"held_out_fraction": 0.0, "evaluate_every": 0, "proximal": 0.0})
        own = document.model_copy(update={"task": document.task.model_copy(update={"training": spec})})
        done = max((int(file.stem) for file in folder.glob("*.safetensors") if file.stem.isdigit()), default=0)
        adapter = folder / f"{done}.safetensors"
        if not done:
            write_atomic(adapter, self._bytes(first_adapter(document.layout, document.task.adapter.seed)))
        for number in range(done, rounds):
            self.say(f"  {model.name}: {number + 1} of {rounds} rounds' steps")
            seed = hashlib.sha256(f"baseline/{self.settings.seed}/{model.name}/{number}".encode()).digest()
            request = TrainingRequest(
                document=own,
                base=self.training.base,
                global_adapter=adapter,
                records=drawn(model.records, own.task.training, seed),
                seed=seed,
                plan=self.training.plan,
                version=number,
            )
            result = await place.train(request, lambda _: None)
            moved = document.layout.flatten(read_state(adapter)) + result.update
            before, adapter = adapter, folder / f"{number + 1}.safetensors"
            write_atomic(adapter, self._bytes(moved))
            before.unlink()
        adapter.replace(folder / TENSORS)
        write_atomic(folder / CONFIG, config_bytes(own.task), _PUBLIC)

    def _bytes(self, adapter: Any) -> bytes:
        return save(self.document.layout.unflatten(adapter), metadata={"format": "pt"})

    async def _measured(self, models: Sequence[Model]) -> list[ModelResult]:
        task = self.document.task
        newest = newest_adapter(self.folder / "adapters", task.id)
        if newest is None:
            raise FleetError("the fleet has no adapter yet that could be compared", code="F016", where="--baselines",
                             fix=f"fedit-client fleet --resume --out {self.folder}")  # fmt: skip
        adapters: dict[str, Path | None] = {"base": None, "federation": newest[1]}
        adapters |= {model.name: self.folder / FOLDER / model.name for model in models}
        roles: dict[str, Role] = {"base": "base", "federation": "fed"}
        roles |= {model.name: model.role for model in models}
        records = read_records(self.folder / PARTITION / f"{TEST}.jsonl").records
        self.say(f"measuring {len(adapters)} models on {len(records)} rows that no client has")
        prompt = task.prompt.model_copy(update={"cutoff_tokens": max(task.prompt.cutoff_tokens, MEASURED_TOKENS)})
        request = MeasureRequest(None, self.training.base, adapters, records, self.training.plan,
                                 most_rows=len(records), prompt=prompt)  # fmt: skip
        measured = await self.measurer.measure(request, self._by_quarters())
        return results_of(measured, records, roles=roles, seed=self.settings.seed)

    def _by_quarters(self) -> OnProgress:
        """Tell of a long measurement that it moves, and not of every row."""
        told = 0

        def tell(progress: TrainingProgress) -> None:
            nonlocal told
            if progress.stage == "evaluate" and progress.total and 4 * progress.done // progress.total > told:
                told = 4 * progress.done // progress.total
                self.say(f"  {progress.words()}")

        return tell


def plain_document(document: TaskDocument) -> TaskDocument:
    """Return a task without a federation's rules; its method is plain LoRA, since there is nothing to aggregate.

    Raises FleetError F016 where what is trained is no pair of LoRA factors.
    """
    task = document.task
    if document.layout != document.built:
        raise FleetError(f"what the method {task.method.name} trains is no pair of LoRA factors, so no plain training "
                         "is comparable to it", code="F016", where="--baselines",
                         fix="fedit-client fleet without --baselines, or method.name = fedavg in the task")  # fmt: skip
    adapter = task.adapter.model_copy(update={"ranks": ()})
    plain = task.model_copy(update={"method": MethodSpec(), "adapter": adapter, "fairness": None})
    return document.model_copy(update={"task": plain})


def drawn_clients(clients: Sequence[VirtualClient], seed: int) -> list[VirtualClient]:
    """Return at most MOST_ALONE clients, in their order: those whose names hash lowest with the seed."""
    by_hash = sorted(clients, key=lambda one: hashlib.sha256(f"alone/{seed}/{one.name}".encode()).digest())
    return sorted(by_hash[:MOST_ALONE], key=lambda one: one.number)
