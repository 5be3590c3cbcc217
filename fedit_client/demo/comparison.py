"""The demo's control experiment: each client alone for as many steps, and everybody on the same held-out rows."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from fedit_client.adapters.kept import TENSORS, newest_adapter
from fedit_client.console import Console
from fedit_client.data import Message, Record, read_records
from fedit_client.demo.plan import DemoRows, Pace
from fedit_client.demo.report import BASE, TOGETHER, DemoReport
from fedit_client.evaluation import EvaluationRequest, WorkerChat, WorkerEvaluator
from fedit_client.hardware.device import DevicePlan, Machine
from fedit_client.home.durable import write_atomic
from fedit_client.task_groups import task_group
from fedit_client.training import TrainingProgress, TrainingRequest, WorkerTrainer
from fedit_protocol.errors import FeditError
from fedit_protocol.task import TaskDocument

_ANSWER_TOKENS = 48
_PROBE_STEPS = 2


@dataclass(frozen=True)
class Comparison:
    """One task on one machine, outside any federation."""

    document: TaskDocument
    base: Path
    plan: DevicePlan
    rows: DemoRows = field(repr=False)
    home: Path

    async def seconds_per_step(self) -> float:
        """Train a few steps on the first client's rows and return how long one took, loading left out."""
        task = self.document.task
        few_steps = task.training.model_copy(update={"local_steps": _PROBE_STEPS, "held_out_fraction": 0.0})
        document = self.document.model_copy(update={"task": task.model_copy(update={"training": few_steps})})
        adapter = self.home / "probe" / TENSORS
        zeros = np.zeros(self.document.layout.size, dtype=np.float32)
        write_atomic(adapter, save(self.document.layout.unflatten(zeros)))
        speeds: list[float] = []

        def watch(progress: TrainingProgress) -> None:
            if progress.tokens_per_second:
                speeds.append(progress.tokens_per_second)

        shard = next(iter(self.rows.shards.values()))
        result = await WorkerTrainer().train(self._request(document, adapter, read_records(shard).records), watch)
        return result.tokens / speeds[-1] / _PROBE_STEPS if speeds else 0.0

    async def report(self, clients: Path, pace: Pace, console: Console, *, shortened: bool, chat: bool) -> DemoReport:
        """Train everybody alone, evaluate all, show the table; `clients` holds the homes of the three clients."""
        first = next(iter(self.rows.shards))
        newest = newest_adapter(clients / first / "adapters", self.document.task.id)
        if newest is None or newest[0] != pace.rounds:
            raise FeditError("the federation has left no adapter behind", code="X002", fix="run the demo again")
        start = clients / first / "adapters" / self.document.task.id / "0" / TENSORS
        alone = await self._all_alone(start, pace.rounds, console)
        adapters = {BASE: None, **alone, TOGETHER: newest[1] / TENSORS}
        console.say(f"evaluating {len(adapters)} models on {len(self.rows.held_out)} held-out rows …", style="dim")
        request = EvaluationRequest(self.document, self.base, adapters, self.rows.held_out, self.plan)
        losses = await WorkerEvaluator().evaluate(request, lambda _: None)
        report = DemoReport({name: losses[name] for name in adapters}, pace.rounds, pace.steps, shortened)
        if not console.json:
            report.show(console.out)
        if chat:
            report = await self._with_answers(report, newest[1] / TENSORS, console)
        (console.done if report.together_is_best else console.warn)(report.verdict())
        return report

    async def _all_alone(self, start: Path, rounds: int, console: Console) -> dict[str, Path]:
        """Each client for itself, the same rounds and steps, from the same first adapter."""
        turns = asyncio.Semaphore(max(1, min(Machine.here().cores, len(self.rows.shards))))
        async with task_group() as group:
            tasks = {
                name: group.create_task(self._alone(name, shard, start, rounds, turns, console.say))
                for name, shard in self.rows.shards.items()
            }
        return {name: task.result() for name, task in tasks.items()}

    async def _alone(
        self, name: str, shard: Path, start: Path, rounds: int, turns: asyncio.Semaphore, say: Callable[[str], None]
    ) -> Path:
        records, adapter = read_records(shard).records, start
        for number in range(1, rounds + 1):
            async with turns:
                say(f"  {name} alone: round {number} of {rounds}")
                result = await WorkerTrainer().train(self._request(self.document, adapter, records), lambda _: None)
            layout = self.document.layout
            trained = layout.flatten(load(adapter.read_bytes())) + result.update
            adapter = self.home / "alone" / name / str(number) / TENSORS
            write_atomic(adapter, save(layout.unflatten(trained)))
        return adapter

    async def _with_answers(self, report: DemoReport, adapter: Path, console: Console) -> DemoReport:
        """One question, answered by the base and by the federation's adapter."""
        question = self._question(report)
        prompt = question.messages[:-1]
        console.say()
        console.say(f"asked, from what it learned best:  {prompt[-1].content}")
        answers = {}
        for name, folder in ((BASE, None), (TOGETHER, adapter)):
            answers[name] = await self._ask(prompt, folder)
            console.say(f"{'before' if name == BASE else 'after'}:  {' '.join(answers[name].split())}")
        console.say(f"wanted: {' '.join(question.messages[-1].content.split())}")
        return replace(report, prompt=prompt[-1].content, answers=answers)

    async def _ask(self, prompt: tuple[Message, ...], adapter: Path | None) -> str:
        document = self.document if adapter else None
        async with WorkerChat(self.base, self.plan, adapter, document) as voice:
            return "".join([piece async for piece in voice.ask(prompt, max_tokens=_ANSWER_TOKENS)])

    def _question(self, report: DemoReport) -> Record:
        """A held-out row of the category that the federation knows best: after so few steps it can speak of little."""
        after = report.losses[TOGETHER].by_category
        best = min(after, key=lambda category: after[category])
        return next((row for row in self.rows.held_out if row.category == best), self.rows.held_out[0])

    def _request(self, document: TaskDocument, adapter: Path, records: tuple[Record, ...]) -> TrainingRequest:
        return TrainingRequest(
            document=document,
            base=self.base,
            global_adapter=adapter,
            records=records,
            seed=secrets.token_bytes(32),
            plan=self.plan,
            split_seed=b"demo",
        )
