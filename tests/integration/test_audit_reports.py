"""What real rounds say of their updates: the loss by averaging, the advice of two audits, and gradient diversity."""

from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.task import Task
from fedit_server.admin.overview import overview
from fedit_server.commands.words import status_lines

from ..server.bases import make_base
from .federation import Wire, all_take_part, exact_task, federation
from .test_side_delta import TurningTrainer

RANGE = 0.03
"""Far enough that what averaging loses stays above 2 % whatever four probes are drawn: 7 to 23 % in eight runs."""


async def test_two_audited_rounds_advise_in_status_and_say_their_figures(tmp_path: Path) -> None:
    """Three devices go three ways, so that averaging their factors loses far more than 2 %."""
    known = exact_task(make_base(tmp_path / "base"), 3, rounds=2).model_dump(mode="json")
    changes = {
        "method": {"audit_every": 1, "diversity": True},
        "adapter": {"rank": 2, "target_modules": ["v_proj"]},
        "encoding": {"value_range": RANGE, "clip_norm": 100.0, "rows_per_weight": 10},
    }
    async with federation(tmp_path, Task.model_validate(known | changes)) as fed:
        trainers = [TurningTrainer(n, RANGE) for n in range(3)]
        clients = [fed.client(f"device-{n}", trainer, Wire()) for n, trainer in enumerate(trainers)]
        await all_take_part(clients, max_rounds=2)
        parts = fed.server.parts
        first, second = [row.figures.report for row in await parts.store.rounds.rounds() if row.figures]
        scraped = parts.coordinator.services.desk.metrics.render().decode()
        lines = status_lines((await overview(parts.admin)).model_dump(mode="json"))
    assert first["advised"] is None
    assert second["audits"][1] == first["audits"][0]
    assert second["audits"][0] == {"round": 2, "error": second["method"]["audit_error"], "left": None}
    assert min(one["error"] for one in second["audits"]) > 0.02
    assert any(line.startswith("  audit    round 2 lost ") and " in round 1)" in line for line in lines)
    for number, report in enumerate((first, second)):
        updates = np.array([trainer.updates[number] for trainer in trainers], np.float64)
        unlike = np.mean(np.sum(updates**2, axis=1)) / np.sum(updates.mean(axis=0) ** 2)
        assert report["method"]["diversity"] == pytest.approx(unlike, rel=0.01)
        assert "statistics" not in report, "the sum of squares says nothing by itself"
    assert (
        f"  unlike   gradient diversity {second['method']['diversity']:.2f}: 1 if all devices sent the same, about 3 if"
        in ("\n".join(lines))
    )
    assert f'fedit_gradient_diversity{{task="exact"}} {second["method"]["diversity"]}' in scraped
    assert f'{{after="average",task="exact"}} {second["audits"][0]["error"]}' in scraped
    assert any("fedit_rs gives most of it back" in line for line in lines)
