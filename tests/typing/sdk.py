"""The SDK as users write it; checked by pyright and mypy, never run."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import assert_type

from fedit_client import (
    Client,
    Consent,
    ConsentSummary,
    DataSource,
    DryRun,
    Event,
    EventKind,
    LocalResult,
    Membership,
    Payload,
    RoundStage,
    RowFile,
    Shape,
    SyncClient,
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


class OwnRows:
    """Satisfies the seam by its shape alone, with rows of a narrower type."""

    def rows(self) -> Iterator[dict[str, str]]:
        """Not run."""
        raise NotImplementedError


trainer: Trainer = OwnTrainer()
source: DataSource = OwnRows()


async def embed(invite: str, home: Path) -> None:
    """Every public step with its type."""
    async with Client.open(invite, app="notes-app", data_dir=home, trainer=trainer) as client:
        assert_type(client, Client)
        offer = await client.fetch_offer()
        assert_type(offer, TaskOffer)
        assert_type(offer.summary, ConsentSummary)
        assert_type(offer.summary.hidden_among, int)
        assert_type(offer.example_payload.size, int)
        assert_type(offer.example_payload, Payload)
        assert_type(await client.dry_run(offer), DryRun)
        assert_type(offer.accept(), Consent)
        assert_type(client.add_data(home / "rows.jsonl"), RowFile)
        assert_type(client.add_data("org/name:train", columns={"prompt": "q"}, on_error="skip"), RowFile)
        assert_type(client.add_records([{"prompt": "a", "completion": "b"}]), RowFile)
        client.add_source(source, shape=Shape.MESSAGES)
        assert_type(client.has_data, bool)
        assert_type(await client.join(consent=offer.accept()), Membership)
        client.pause()
        client.pause(until=datetime.now().astimezone())
        client.resume()
        async for event in client.run(max_rounds=1):
            assert_type(event, Event)
            assert_type(event.kind, EventKind)
            assert_type(event.progress, float | None)
            assert_type(event.stage, RoundStage | None)
        assert_type(client.latest_adapter(), Path | None)
        assert_type((await client.leave(erase=True)).paths, list[Path])


def embed_without_a_loop(invite: str, home: Path) -> None:
    """The same for plain functions."""
    with SyncClient.open(invite, app="notes-app", data_dir=home, trainer=trainer) as client:
        assert_type(client, SyncClient)
        offer = client.fetch_offer()
        assert_type(offer, TaskOffer)
        assert_type(client.join(consent=offer.accept()), Membership)
        client.add_source(source)
        for event in client.run(max_rounds=1):
            assert_type(event, Event)
        client.run_to_end(on_event=lambda event: None)
        client.pause()
        client.resume()
        assert_type(client.latest_adapter(), Path | None)
