"""Server optimisers, FedNova, SCAFFOLD, coverage and devices that decide, over real HTTPS with real masks."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_client.training.own_control import controls, keep_next
from fedit_protocol.adapter import Vector
from fedit_protocol.control_variates import CONTROL
from fedit_protocol.task import Task
from fedit_protocol.task_selection import WEIGHT_STEPS
from fedit_server.adapters.state import get_state
from fedit_server.storage.rows import AdapterRow

from ..server.bases import make_base
from .federation import UNIT, Federation, StepTrainer, TamperedClient, exact_task, federation

RATE = 127 / 128 / 1.05
"""A learning rate with which one step moves a coordinate by 127 ring units at most."""


def changed(task: Task, **tables: Any) -> Task:
    """Return the task with these tables, checked again."""
    values = task.model_dump() | tables
    return Task.model_validate(values)


def deciding(task: Task, **selection: float) -> Task:
    """Return the task with rounds that devices join by their own draw."""
    return changed(task, round=task.round.model_dump() | {"selection": "self"}, selection=selection)


async def part(client: TamperedClient, rows: list[str]) -> None:
    """Join with a row of each of these categories, and stay until the task ends."""
    async with client:
        offer = await client.fetch_offer()
        client.add_records([{"instruction": "say ok", "response": "ok", "category": name} for name in rows])
        await client.join(consent=offer.accept())
        await client.run_to_end(None, lambda _: None)


async def newest(fed: Federation) -> AdapterRow:
    parts = fed.server.parts
    (task,) = await parts.store.tasks.tasks()
    return await parts.store.tasks.newest_adapter(task.task_id)


def mean_change(start: Vector, changes: dict[int, float]) -> np.ndarray:
    whole = np.zeros(len(start))
    for place, value in changes.items():
        whole[place] = value
    return whole


class SlowTrainer(StepTrainer):
    """A trainer that makes four steps, whatever the task asks for."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        return replace(await super().train(request, on_progress), steps=4)


async def test_two_rounds_of_fednova_and_nesterov_under_masks_go_where_the_formulas_say(tmp_path: Path) -> None:
    """Three devices make 2, 5 and 4 steps, the last one for want of time; the second round remembers the first."""
    task = changed(
        exact_task(make_base(tmp_path / "base", layers=2), 3, rounds=2),
        training={"local_steps": 0, "max_steps": 20, "schedule": "constant", "learning_rate": RATE},
        encoding={"clip_norm": 100.0, "rows_per_weight": 10},
        optimizer={"name": "nesterov", "fednova": True},
        selection={"domains": ["closed_qa", "poetry", "summaries"]},
    )
    rows, steps, units = (16, 40, 80), (2, 5, 4), (6, 10, 48)
    held = (["closed_qa"] * 20, ["closed_qa"] * 20, [*["poetry"] * 19, "summaries"])
    kinds = (StepTrainer, StepTrainer, SlowTrainer)
    trainers = [kinds[k](examples=rows[k], place=k, steps=units[k]) for k in range(3)]
    async with federation(tmp_path, task) as fed:
        await asyncio.gather(*(part(fed.client(f"device-{k}", trainers[k]), held[k]) for k in range(3)))
        start, once, twice = [await fed.adapter(version) for version in range(3)]
        row = await newest(fed)
        kept = await get_state(fed.server.parts.blobs, row.kept_digest)
        report = (await fed.server.parts.store.rounds.rounds())[0].figures
    weights = [2, 4, 8]
    effective = sum(w * tau for w, tau in zip(weights, steps, strict=True)) / 14
    change = mean_change(start, {k: effective * weights[k] * units[k] * UNIT / steps[k] / 14 for k in range(3)})
    # Nesterov: v1 = Δ, v2 = μΔ + Δ; each round moves by η(Δ + μv), with μ = 0.5 and η = 0.7 in a short task.
    assert np.allclose(once - start, 0.7 * (change + 0.5 * change), atol=1e-6)
    assert np.allclose(twice - once, 0.7 * (change + 0.5 * 1.5 * change), atol=1e-6)
    assert np.allclose(kept["optimizer/velocity"], 1.5 * change, atol=1e-6)
    assert report is not None
    assert report.report["statistics"]["steps"] == 1000 * (2 * 2 + 4 * 5 + 8 * 4)
    # One row of twenty is not more than 5 %: nobody has summaries.
    assert (report.report["coverage"], report.report["not_covered"]) == (2 / 3, ["summaries"])
    assert report.report["statistics"]["covers closed_qa"] == 2


@pytest.mark.slow
async def test_devices_decide_for_themselves_and_weigh_by_the_inverse(tmp_path: Path) -> None:
    """All join with 0.9 or a little more, so that each stands for a little more than itself."""
    task = deciding(
        exact_task(make_base(tmp_path / "base", layers=2), 7, rounds=1, cohort_min=3), join_share=0.9, join_least=0.4
    )
    trainers = [StepTrainer(examples=20, place=k, steps=8) for k in range(7)]
    async with federation(tmp_path, task) as fed:
        await asyncio.gather(*(part(fed.client(f"device-{k}", trainers[k]), ["a"] * 20) for k in range(7)))
        start, end = await fed.adapter(0), await fed.adapter(1)
        public = await get_state(fed.server.parts.blobs, (await newest(fed)).public_digest)
        figures = (await fed.server.parts.store.rounds.rounds())[0].figures
    assert figures is not None
    joined = [k for k in range(7) if trainers[k].requests]
    assert figures.survivors == len(joined) >= 3
    # Two units of weight, over 0.9, in parts of a quarter: 8.9 of them, so eight or nine.
    moved = (end - start)[:7] * figures.weight / (8 * UNIT)
    assert {round(float(moved[k])) for k in joined} <= {2 * WEIGHT_STEPS, 2 * WEIGHT_STEPS + 1}
    assert all(moved[k] == 0 for k in range(7) if k not in joined)
    # Every device has the loss 1.5, so the next round's c aims at 0.9 / 1.5.
    assert np.allclose(public["selection/scale"], 0.6, rtol=1e-3)


class ControlTrainer(StepTrainer):
    """A trainer that keeps SCAFFOLD's variate as the real one does."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        keep_next(request, result.update)
        return result


@pytest.mark.slow
async def test_scaffold_publishes_the_mean_of_what_devices_keep(tmp_path: Path) -> None:
    """c follows from the sum of the updates alone, and is the mean of all c_k after every committed round."""
    task = changed(
        exact_task(make_base(tmp_path / "base", layers=2), 3, rounds=2),
        training={"local_steps": 1, "schedule": "constant", "learning_rate": RATE},
        encoding={"clip_norm": 100.0, "rows_per_weight": 1000, "value_range": 127 / 128},
        method={"name": "scaffold", "population": 3},
    )
    trainers = [ControlTrainer(examples=20, place=k, steps=8 + k) for k in range(3)]
    async with federation(tmp_path, task) as fed:
        await asyncio.gather(*(part(fed.client(f"device-{k}", trainers[k]), ["a"] * 20) for k in range(3)))
        public = await get_state(fed.server.parts.blobs, (await newest(fed)).public_digest)
        report = (await fed.server.parts.store.rounds.rounds())[0].figures
    own = [controls(trainer.requests[-1])[1] for trainer in trainers]
    assert np.allclose(public[CONTROL], np.mean(own, axis=0), atol=1e-6)
    assert all(np.abs(one).max() > 0 for one in own)
    assert report is not None
    assert report.report["statistics"]["devices"] == 3


@pytest.mark.slow
async def test_a_trusted_server_draws_by_what_it_has_seen_and_writes_none_of_it_down(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base", layers=2), 3, rounds=2, mode="trusted", selection="oort")
    trainers = [StepTrainer(examples=20 + k, place=k, steps=8, loss=1.5 + k) for k in range(4)]
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        clients = [fed.client(f"device-{k}", trainers[k], limits={"modes": ["masked", "trusted"]}) for k in range(4)]
        await asyncio.gather(*(part(client, ["a"] * 20) for client in clients))
        (runner,) = fed.server.parts.coordinator.runners.values()
        seen = sorted((one.rows, round(one.square_loss, 6)) for one in runner._seen.values())
        rounds = await fed.server.parts.store.rounds.rounds()
    told = [(20 + k, (1.5 + k) ** 2) for k in range(4)]
    assert len(seen) >= 3
    assert set(seen) <= set(told)
    # The second round took the one that the first one had not.
    assert sum(len(trainer.requests) for trainer in trainers) == 6
    assert all(trainer.requests for trainer in trainers)
    assert not any("seen" in (one.figures.report if one.figures else {}) for one in rounds)


@pytest.mark.slow
async def test_nobody_waits_for_devices_that_decline(tmp_path: Path) -> None:
    """Most of ten join: the round goes on as soon as all have answered, long before the time to join is over."""
    slow = {**exact_task(tmp_path, 3).round.deadlines.model_dump(), "join_s": 120.0}
    task = deciding(
        exact_task(make_base(tmp_path / "base", layers=2), 10, cohort_min=3, deadlines=slow),
        join_share=0.7,
        join_least=0.4,
    )
    trainers = [StepTrainer(examples=20, place=k, steps=8) for k in range(10)]
    async with federation(tmp_path, task) as fed, asyncio.timeout(60):
        await asyncio.gather(*(part(fed.client(f"device-{k}", trainers[k]), ["a"] * 20) for k in range(10)))
        row = (await fed.server.parts.store.rounds.rounds())[-1]
    assert row.figures is not None
    assert 3 <= row.figures.survivors <= sum(bool(trainer.requests) for trainer in trainers)
