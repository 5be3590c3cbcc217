"""Slow virtual clients say so as devices do: in their check-ins, and by the steps that they make."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedit_client.config import ClientConfig
from fedit_client.fleet.member import Member
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import load_identity
from fedit_client.network.metering import MeteredTransport
from fedit_client.network.transport import Transport
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.encoding import decode
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import CheckIn
from fedit_protocol.signing import Kind, SigningKey, read_envelope
from fedit_protocol.task import Task

from ..server.bases import make_base
from .federation import exact_task, federation
from .test_fleet import LONG, OneStep, made

SLOWDOWNS = (1.0, 8.0, 2.0)
SAID = defaultdict[IdentityKey, list[int | None]]


class Overheard(MeteredTransport):
    """A transport that keeps what each check-in declares of a round's time."""

    def __init__(self, inner: Transport, said: SAID) -> None:
        super().__init__(inner)
        self._said = said

    async def post(self, path: str, body: bytes) -> bytes:
        if path == "/v1/checkin":
            envelope = read_envelope(body, Kind.CHECK_IN)
            declared = decode(CheckIn, envelope.body).declared
            self._said[IdentityKey(envelope.signer)].append(declared.round_s if declared else None)
        return await super().post(path, body)


@dataclass
class Measured(OneStep):
    """64 tokens a second in its steps, and a tenth of a second besides."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        return replace(result, tokens=6, tokens_per_second=64.0, seconds=0.2)


def drawn_by_time(base: Path) -> Task:
    """A task that draws by time and counts each device's steps: 32 rows of some 18 tokens, 60 s for them."""
    deadlines = LONG | {"gather_s": 1.0, "upload_s": 60.0}
    values = exact_task(base, 3, rounds=2, selection="resource_aware", deadlines=deadlines).model_dump()
    training = {"local_steps": 8, "batch_size": 4, "micro_batch_size": 4}
    return Task.model_validate(values | {"optimizer": {"fednova": True}, "training": values["training"] | training})


def key_of(member: Member) -> IdentityKey:
    key = load_identity(Paths.under(member.client.home).identity_file)
    assert key is not None
    return key.public


@pytest.mark.parametrize("declare", [True, False], ids=["declared", "kept back"])
async def test_a_slow_client_declares_its_time_once_it_is_known_and_makes_the_steps_that_fit(
    tmp_path: Path, declare: bool
) -> None:
    said = SAID(list)
    config = ClientConfig(home=tmp_path / "owner", privacy={"declare": declare})
    async with federation(tmp_path, drawn_by_time(make_base(tmp_path / "base"))) as served, asyncio.timeout(60):
        small = await made(served, 3, trainer=Measured(), config=config)
        inner = small.world.connect

        @asynccontextmanager
        async def connect(key: SigningKey | None) -> AsyncIterator[Transport]:
            async with inner(key) as transport:
                yield Overheard(transport, said)

        object.__setattr__(small.world, "connect", connect)
        members = small.fleet.members
        for member, slowdown in zip(members, SLOWDOWNS, strict=True):
            member.client = replace(member.client, slowdown=slowdown)
        await small.fleet.run()
    told = [said[key_of(member)] for member in members]
    # 32 rows of 18 tokens at 64 tokens a second are 9 s; a check-in says the next power of two.
    known = [16, 128, 32] if declare else [None] * 3
    assert all(one[0] is None for one in told), "nothing is known before the first round"
    assert [one[-1] for one in told] == known
    first, second = small.trainer.requests[:3], small.trainer.requests[3:]
    assert {request.plan.most_steps for request in first} == {0}
    steps = {request.own and request.own.parent: request.plan.most_steps for request in second}
    # A step of the slowest takes 9 s, and 80 % of the time are planned with.
    assert [steps[member.client.home] for member in members] == [0, 5, 0]
