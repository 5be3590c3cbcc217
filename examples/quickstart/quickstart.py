"""Take part in one round of a federation from a program of your own.

    python examples/quickstart/quickstart.py "fedit://host:8443/j/CODE#sha256:PIN" rows.jsonl

The program asks on the terminal; yours may show the same summary in a dialog. Nothing is trained before the yes.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from fedit_client import Client, ConsentSummary, FeditError, Trainer


async def contribute(
    invite: str, rows: Path, home: Path, agree: Callable[[ConsentSummary], bool], trainer: Trainer | None = None
) -> Path | None:
    """Join, take part in one round, and return the folder of the newest adapter; None if the owner declined."""
    async with Client.open(invite, home=home, trainer=trainer) as client:
        client.add_data(rows)  # read in place and checked now; never copied, never sent
        offer = await client.fetch_offer()
        if not agree(offer.summary):
            return None
        await client.join(consent=offer.accept(), label="quickstart")
        async for event in client.run(max_rounds=1):
            share = "" if event.progress is None else f"{event.progress:4.0%} "
            print(f"{share}{event.text}")
        return client.latest_adapter()


def ask(summary: ConsentSummary) -> bool:
    """Show what the owner agrees to, and wait for an answer."""
    print(*summary.lines(), sep="\n")
    return input("Take part? [y/N] ").strip().lower() == "y"


def main() -> None:
    """Read the command line, contribute, say where the adapter lies."""
    invite, rows = sys.argv[1:3]
    try:
        adapter = asyncio.run(contribute(invite, Path(rows), Path("fedit-quickstart"), ask))
    except FeditError as error:
        sys.exit(f"FEDIT-{error.code}: {error}\n  fix: {error.fix}")
    print(f"a PEFT folder: {adapter}" if adapter else "declined; nothing was sent")


if __name__ == "__main__":
    main()
