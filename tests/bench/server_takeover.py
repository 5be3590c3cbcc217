"""From the kill of a task's owner until the same round moves again: measured by the test that proves the sums exact."""

import json
import shutil
import subprocess
import sys

from ..integration.replicas import LEASE_S
from .training_setting import ROOT

_TEST = "tests/integration/test_replicas.py"
_NAME = "test_replicas_share_a_round_and_a_killed_owner_is_replaced_in_every_phase"


def takeover_figures() -> dict[str, float | None]:
    """The slowest of five takeovers, one in each phase, with three replicas behind nginx; None without its programs."""
    if not all(map(shutil.which, ("nginx", "postgres", "initdb"))):
        return {"replica_takeover_s": None, "lease_s": LEASE_S}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"{_TEST}::{_NAME}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if '"replica_takeover_s"' in line:
            took: dict[str, float] = json.loads(line[line.index("{") :])["replica_takeover_s"]
            return {"replica_takeover_s": max(took.values()), "lease_s": LEASE_S}
    raise RuntimeError(done.stdout[-300:])
