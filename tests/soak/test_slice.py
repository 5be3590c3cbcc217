"""A slice of the soak, five minutes long unless FEDIT_SOAK_MINUTES, FEDIT_SOAK_DEVICES or FEDIT_SOAK_SEED differ."""

import json
import os
import sys
from pathlib import Path

import pytest

from fedit_server.running.connections import allow_many

from .plan import SoakPlan
from .run import soak

MINUTES = float(os.environ.get("FEDIT_SOAK_MINUTES", "5"))
DEVICES = int(os.environ.get("FEDIT_SOAK_DEVICES", str(SoakPlan.devices)))
SEED = os.environ.get("FEDIT_SOAK_SEED", SoakPlan.seed)


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 900)
async def test_a_federation_on_bad_lines_with_a_server_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    allow_many()
    found = await soak(SoakPlan(MINUTES, DEVICES, SEED), tmp_path)
    sys.stdout.write(json.dumps(found, indent=2))
    assert found["faults"] == []
    assert found["kills"] > 0
    assert found["lines_cut"] > 0
