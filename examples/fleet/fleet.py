"""What do dropouts cost? The same fleet of virtual clients several times, each against a server of its own.

    python examples/fleet/fleet.py rows.jsonl results/

Seed, partition and training are the same in each run; only how often clients vanish differs. Afterwards each folder
holds a report, `rounds.jsonl`, plots, and everything that repeats it. `fedit-client fleet --help` runs one of them.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from fedit_client.data import Source
from fedit_client.fleet import FleetSettings, Launch, OpenPlaces, launch


async def compare(
    rows: Path,
    results: Path,
    dropouts: tuple[float, ...] = (0.0, 0.3),
    model: str = "",
    places: OpenPlaces | None = None,
) -> dict[float, dict[str, Any]]:
    """Run one fleet for each share of dropouts; with `places` of your own you decide how clients train."""
    found: dict[float, dict[str, Any]] = {}
    for share in dropouts:
        settings = FleetSettings(
            server="local",
            data=str(rows),
            clients=8,
            partition="dirichlet:0.5:min=2",
            rounds=2,
            seed=1,
            dropout=share,
            test_rows=2,
            model=model,
        )
        folder = results / f"dropout-{share:g}"
        wanted = Launch(settings, folder, Source(str(rows)), say=print, places=places)
        found[share] = await launch(wanted)
    return found


def main() -> None:
    """Compare, and print a line for each."""
    rows, results = Path(sys.argv[1]), Path(sys.argv[2])
    for share, summary in asyncio.run(compare(rows, results)).items():
        gone = sum(summary["dropped"].values())
        print(f"dropout {share:g}: {gone} vanished, last loss {summary['last_train_loss']}, {summary['wall_s']} s")


if __name__ == "__main__":
    main()
