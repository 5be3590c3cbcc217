"""Kill −9 around every record of a trusted round, and around its key: the same round goes on, and no key stays."""

from pathlib import Path

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.messages import RoundResult
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Task

from .crashing import KillPoint, every_record
from .test_kill_campaign import DEVICES, Campaign, Play, campaign_task, report

RECORDS = DEVICES + 1 + DEVICES + 1
"""Journal records of a trusted round: who accepted, that they are fixed; who uploaded, that they are fixed."""

AROUND = (
    "round key create: before",
    "round key create: after",
    "round open: before the commit",
    "round open: after the commit",
    "PUT uploads: before",
    "PUT uploads: after",
    "spool write: half",
    "updates opened: before",
    "updates opened: after",
    "ending: before",
    "round commit: before the commit",
    "round commit: after the commit",
    "round key destroy: before",
    "round key destroy: after",
)
"""Seams that no record stands for: the key's file, the opening, the end."""


class TrustedCampaign(Campaign):
    """The rounds of a federation whose server sees every update."""

    def survivors(self, round_id: str) -> list[int]:
        """The signed result counts them; the sum, which is checked next, says whose they are."""
        received = self.witness.documents[round_id, "result"]
        result = decode(RoundResult, read_envelope(received, Kind.RESULT).body)
        assert (result.survivors, result.sums_done) == (DEVICES, 0)
        return list(range(DEVICES))

    def check(self) -> int:
        """Hold the rounds against plain integers; of their keys none but that of a round still open may be left."""
        committed = super().check()
        keys = [path.name for path in (self.server.home / "round-keys").iterdir()]
        assert len(keys) <= 1
        assert not {f"{round_id}.key" for round_id in self.witness.committed().values()} & set(keys)
        return committed


def trusted_task(base: Path) -> Task:
    """The task of the masked campaign, in trusted mode."""
    task = campaign_task(base)
    return Task.model_validate(task.model_dump() | {"round": task.round.model_dump() | {"mode": "trusted"}})


TRUSTED = Play(
    campaign=TrustedCampaign,
    task=trusted_task,
    words=("--allow-trusted",),
    settings={"limits": {"modes": ["masked", "trusted"]}},
    first="POST accept: before",
)


def around() -> list[KillPoint]:
    return [KillPoint(100 + index, seam, 1) for index, seam in enumerate(AROUND)]


async def test_kills_around_a_trusted_round_lose_nothing(tmp_path: Path) -> None:
    """Every fifth of the points below: the quick slice."""
    await report(tmp_path, "trusted, quick", [*every_record(RECORDS), *around()][::5], TRUSTED)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_kill_at_every_record_and_seam_of_a_trusted_round(tmp_path: Path) -> None:
    await report(tmp_path, "trusted", [*every_record(RECORDS), *around()], TRUSTED)
