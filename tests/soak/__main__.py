"""Run a soak and print what came of it; the exit status is 1 if anything was wrong."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedit_server.running.connections import allow_many

from .plan import SoakPlan
from .run import soak


def lines(found: dict[str, Any], outer: str = "") -> list[tuple[str, str]]:
    """Return the figures one by one, those of an inner object as `outer.inner`, and each fault on a line of its own."""
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += lines(value, f"{outer}{name}.")
        elif isinstance(value, list):
            rows += [(outer + name, str(one)) for one in value or ["none"]]
        else:
            rows.append((outer + name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, run, print; returns the exit status."""
    plan = SoakPlan()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="how long (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=plan.devices, help="how many, 12 to 4096 (default: %(default)s)")
    parser.add_argument("--seed", default=plan.seed, help="what all is drawn from (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run in this new folder, and leave it there")
    options = parser.parse_args(argv)
    if not 12 <= options.devices <= 4096:
        parser.error("--devices: 12 to 4096, one coordinate each")
    plan = SoakPlan(options.minutes, options.devices, options.seed)
    allow_many()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=folder == Path(scratch))
        found = asyncio.run(soak(plan, folder))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(f"{name:<24} {shown}" for name, shown in lines(found)))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
