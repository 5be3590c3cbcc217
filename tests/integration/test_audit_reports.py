"""Audits of real rounds: what averaging lost comes out of the masked sum, and two audits are told as advice."""

from pathlib import Path

from fedit_protocol.task import Task
from fedit_server.admin.overview import overview
from fedit_server.commands.words import status_lines

from ..server.bases import make_base
from .federation import Wire, all_take_part, exact_task, federation
from .test_side_delta import RANGE, TurningTrainer


async def test_two_audited_rounds_advise_in_status_and_say_their_figures(tmp_path: Path) -> None:
    """Three devices go three ways, so that averaging their factors loses far more than 2 %."""
    known = exact_task(make_base(tmp_path / "base"), 3, rounds=2).model_dump(mode="json")
    changes = {
        "method": {"audit_every": 1},
        "adapter": {"rank": 2, "target_modules": ["v_proj"]},
        "encoding": {"value_range": RANGE, "clip_norm": 100.0, "rows_per_weight": 10},
    }
    async with federation(tmp_path, Task.model_validate(known | changes)) as fed:
        clients = [fed.client(f"device-{n}", TurningTrainer(n), Wire()) for n in range(3)]
        await all_take_part(clients, max_rounds=2)
        parts = fed.server.parts
        first, second = [row.figures.report for row in await parts.store.rounds.rounds() if row.figures]
        lines = status_lines((await overview(parts.admin)).model_dump(mode="json"))
    assert first["advised"] is None
    assert second["audits"][1] == first["audits"][0]
    assert second["audits"][0] == {"round": 2, "error": second["method"]["audit_error"], "left": None}
    assert min(one["error"] for one in second["audits"]) > 0.02
    assert any(line.startswith("  audit    round 2 lost ") and " in round 1)" in line for line in lines)
    assert any("fedit_rs gives most of it back" in line for line in lines)
