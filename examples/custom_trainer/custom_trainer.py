"""Bring your own training: anything that turns rows and a global adapter into an update of the same shape.

    python examples/custom_trainer/custom_trainer.py "fedit://host:8443/j/CODE#sha256:PIN"

The trainer below needs no GPU and no torch: it moves every coordinate a little. Put your own loop in its place;
consent, masking, the journal, resumed uploads and lost servers stay FedIT's work.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedit_client import Client, LocalResult, TrainingProgress, TrainingRequest

ROWS = [{"prompt": f"What is {number} + 1?", "completion": str(number + 1)} for number in range(50)]


class NudgeTrainer:
    """The smallest Trainer: it is asked with a TrainingRequest, reports progress, and returns a LocalResult."""

    async def train(self, request: TrainingRequest, on_progress: Callable[[TrainingProgress], None]) -> LocalResult:
        """Return the same small step for every coordinate of the adapter."""
        size = request.document.layout.size  # the global adapter lies in request.global_adapter, a safetensors file
        for step in range(3):
            await request.pause.until_resumed()  # the owner's rules and `pause` hold for your trainer too
            await asyncio.sleep(0)  # a long loop belongs into a thread or a process, so that messages keep flowing
            on_progress(TrainingProgress("train", step + 1, 3, loss=2.0 - step / 10))
        return LocalResult(
            update=np.full(size, 1e-3, dtype=np.float32),
            examples=len(request.records),
            tokens=1000,
            train_loss=1.8,
            held_out_loss=None,
            held_out_loss_after=None,
            seconds=0.1,
        )


async def contribute(invite: str, home: Path) -> Path | None:
    """Join with rows from memory, take part until the task ends, return the newest adapter's folder."""
    async with Client.open(invite, home=home, trainer=NudgeTrainer()) as client:
        client.add_records(ROWS)
        offer = await client.fetch_offer()
        await client.join(consent=offer.accept(), label="custom trainer")
        await client.run_to_end(on_event=lambda event: print(event.text))
        return client.latest_adapter()


if __name__ == "__main__":
    print(asyncio.run(contribute(sys.argv[1], Path("fedit-custom-trainer"))))
