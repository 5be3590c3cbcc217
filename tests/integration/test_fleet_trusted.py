"""A fleet with a server of its own runs tasks in trusted mode: server and clients are one person's."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fedit_client.config import ClientConfig
from fedit_client.data import Source
from fedit_client.fleet import FleetSettings, Launch, TrainingPlaces, launch
from fedit_client.membership.offers import TaskOffer
from fedit_client.rounds.preparation import unplanned
from fedit_protocol.task import Mode

from ..server.bases import make_base
from .test_fleet import OneStep
from .test_fleet_command import rows

SEED = 26
"""Of its four clients one vanishes before it accepts the first round, one before it uploads."""


@asynccontextmanager
async def places(offer: TaskOffer) -> AsyncIterator[TrainingPlaces]:
    yield TrainingPlaces([OneStep()], Path(), unplanned(offer.document))


def wanted(folder: Path, base: Path, policy: str, said: list[str], **settings: Any) -> Launch:
    """A fleet on a task in trusted mode, of an owner who allows masked rounds only."""
    task, data = folder / "task.toml", rows(folder, 60)
    task.write_text(
        'id = "seen"\ntitle = "Seen"\n[encoding]\nclip_norm = 100.0\n'
        f'[round]\nmode = "trusted"\nrounds = 2\n{policy}\n[round.deadlines]\ngather_s = 2.0\n'
    )
    config = ClientConfig(home=folder / "owner")
    assert config.limits.modes == (Mode.MASKED,)
    values = {"clients": 4, "partition": "iid", "test_rows": 0, "model": str(base), **settings}
    made = FleetSettings("local", str(data), **values)
    return Launch(made, folder / "out", Source(str(data)), config, task=task, say=said.append, places=places)


@pytest.mark.slow
async def test_two_clients_draw_by_losses_that_only_a_trusted_server_sees(tmp_path: Path) -> None:
    said: list[str] = []
    policy = 'selection = "oort"\ncohort_size = 2\ncohort_min = 1'
    fleet = wanted(tmp_path, make_base(tmp_path / "base"), policy, said, clients=2)
    async with asyncio.timeout(120):
        summary = await launch(fleet)
    assert summary["rounds"] == 2
    assert len([line for line in said if "sees every single update" in line]) == 1


@pytest.mark.slow
async def test_nobody_waits_for_clients_that_have_vanished_from_trusted_rounds(tmp_path: Path) -> None:
    """The deadlines are those of a fleet's own server: ten minutes to accept, days to upload."""
    policy = "cohort_size = 4\ncohort_min = 2\ndropout_fraction = 0.5"
    fleet = wanted(tmp_path, make_base(tmp_path / "base"), policy, [], dropout=0.4, seed=SEED)
    async with asyncio.timeout(150):
        assert (await launch(fleet))["rounds"] == 2
    first, second = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert first["dropped"] == {"join": 1, "upload": 1}
    assert (first["outcome"], first["survivors"]) == ("committed", 2)
    assert second["outcome"] == "committed"
