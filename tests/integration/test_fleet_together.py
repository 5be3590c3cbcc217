"""Fleets at a server that is not their own: too few for a round, they say so and wait for other people's devices."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fedit_client.config import ClientConfig
from fedit_client.data import Source
from fedit_client.fleet import FleetSettings, Launch, TrainingPlaces, launch
from fedit_client.membership.offers import TaskOffer
from fedit_client.rounds.preparation import unplanned
from fedit_server.access.invites import Terms, create_invite

from ..server.bases import make_base
from .federation import exact_task, federation
from .test_fleet import OneStep
from .test_fleet_command import rows


@asynccontextmanager
async def places(offer: TaskOffer) -> AsyncIterator[TrainingPlaces]:
    yield TrainingPlaces([OneStep()], Path(), unplanned(offer.document))


@pytest.mark.slow
async def test_two_fleets_that_are_too_small_alone_say_so_and_make_up_the_number_together(tmp_path: Path) -> None:
    data, said = rows(tmp_path, 60), dict[str, list[str]](one=[], two=[])
    task = exact_task(make_base(tmp_path / "base"), 6, rounds=1, cohort_min=5)
    async with federation(tmp_path, task) as served, asyncio.timeout(90):
        parts = served.server.parts
        terms, pin = Terms(100, 3600), parts.identity.pin
        invite = await create_invite(
            parts.store.members, parts.invite_salt, served.server.address, pin, terms, int(time.time())
        )

        def wanted(name: str, seed: int) -> Launch:
            settings = FleetSettings("https://there", str(data), 3, "iid", seed, test_rows=0)
            config = ClientConfig(home=tmp_path / "owner")
            return Launch(settings, tmp_path / name, Source(str(data)), config, server=str(invite.link),
                          say=said[name].append, places=places)  # fmt: skip

        async with asyncio.TaskGroup() as group:
            for seed, name in enumerate(said):
                group.create_task(launch(wanted(name, seed)))
    for name, lines in said.items():
        assert any("begins with 5 devices; this fleet has 3 and waits until 2 devices of other people" in line
                   for line in lines)  # fmt: skip
        (line,) = (tmp_path / name / "rounds.jsonl").read_text().splitlines()
        assert json.loads(line)["survivors"] >= 5
