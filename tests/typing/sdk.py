"""The SDK as users write it; checked by pyright and mypy, never run."""

from collections.abc import Callable
from pathlib import Path
from typing import assert_type

from fedit_client import (
    Client,
    Consent,
    ConsentSummary,
    Event,
    EventKind,
    LocalResult,
    Membership,
    RoundStage,
    RowFile,
    TaskOffer,
    Trainer,
    TrainingProgress,
    TrainingRequest,
)


class OwnTrainer:
    """Satisfies the seam by its shape alone."""

    async def train(self, request: TrainingRequest, on_progress: Callable[[TrainingProgress], None]) -> LocalResult:
        """Not run."""
        raise NotImplementedError


trainer: Trainer = OwnTrainer()


async def embed(invite: str, home: Path) -> None:
    """Every public step with its type."""
    async with Client.open(invite, home=home, trainer=trainer) as client:
        assert_type(client, Client)
        offer = await client.fetch_offer()
        assert_type(offer, TaskOffer)
        assert_type(offer.summary, ConsentSummary)
        assert_type(offer.summary.hidden_among, int)
        assert_type(offer.accept(), Consent)
        assert_type(client.add_data(home / "rows.jsonl"), RowFile)
        assert_type(client.add_records([{"prompt": "a", "completion": "b"}]), RowFile)
        assert_type(await client.join(consent=offer.accept()), Membership)
        async for event in client.run(max_rounds=1):
            assert_type(event, Event)
            assert_type(event.kind, EventKind)
            assert_type(event.progress, float | None)
            assert_type(event.stage, RoundStage | None)
        assert_type(client.latest_adapter(), Path | None)
        assert_type((await client.leave(erase=True)).paths, list[Path])
