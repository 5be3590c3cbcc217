"""`SyncClient`: the SDK for programs without an event loop of their own. Each call waits; a thread runs the loop.

    with SyncClient.open(invite, app="notes-app") as client: …

Everything else is `Client`, one to one. Works in notebooks too, where a loop runs already. No signal handlers: Ctrl-C
raises KeyboardInterrupt in the waiting call, and what was going on is cancelled.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from fedit_client.client import Client
from fedit_client.config import ClientConfig
from fedit_client.consent.terms import Consent
from fedit_client.data import Columns, DataSource, OnError, RowFile, Shape
from fedit_client.events import Event
from fedit_client.membership.joined import Membership
from fedit_client.membership.leaving import LeaveReceipt
from fedit_client.membership.offers import TaskOffer
from fedit_client.rounds.rehearsal import DryRun
from fedit_client.training import Trainer

T = TypeVar("T")


class SyncClient:
    """One device in one federation, for plain functions. Use as `with SyncClient.open(invite) as client`."""

    def __init__(self, client: Client) -> None:
        """Use `open`; this takes the client that it speaks to."""
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fedit-client", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        server: str | None = None,
        *,
        app: str | None = None,
        data_dir: Path | None = None,
        home: Path | None = None,
        config: ClientConfig | None = None,
        trainer: Trainer | None = None,
        pin: str | None = None,
        code: str | None = None,
    ) -> Self:
        """Return a client like `Client.open`; raises ConfigError."""
        return cls(
            Client.open(
                server, app=app, data_dir=data_dir, home=home, config=config, trainer=trainer, pin=pin, code=code
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop a run that is still going, and end the thread."""
        self.close()

    def close(self) -> None:
        """Stop a run that is still going, and end the thread; safe to call twice."""
        if self._loop.is_closed():
            return
        self._wait(self._client.__aexit__())
        self._wait(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def membership(self) -> Membership | None:
        """What this device has joined, or None."""
        return self._client.membership

    @property
    def has_data(self) -> bool:
        """Whether there is anything to train on."""
        return self._client.has_data

    def fetch_offer(self, task: str | None = None) -> TaskOffer:
        """Like `Client.fetch_offer`."""
        return self._wait(self._client.fetch_offer(task))

    def join(self, *, consent: Consent, label: str = "") -> Membership:
        """Like `Client.join`."""
        return self._wait(self._client.join(consent=consent, label=label))

    def add_data(
        self,
        place: Path | str,
        *,
        columns: Columns | None = None,
        shape: Shape | None = None,
        on_error: OnError = "stop",
    ) -> RowFile:
        """Like `Client.add_data`."""
        return self._client.add_data(place, columns=columns, shape=shape, on_error=on_error)

    def add_records(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        columns: Columns | None = None,
        shape: Shape | None = None,
        on_error: OnError = "stop",
    ) -> RowFile:
        """Like `Client.add_records`."""
        return self._client.add_records(rows, columns=columns, shape=shape, on_error=on_error)

    def add_source(
        self,
        source: DataSource,
        *,
        columns: Columns | None = None,
        shape: Shape | None = None,
        on_error: OnError = "stop",
    ) -> None:
        """Like `Client.add_source`."""
        self._client.add_source(source, columns=columns, shape=shape, on_error=on_error)

    def run(self, max_rounds: int | None = None) -> Iterator[Event]:
        """Like `Client.run`: yield what happens; a loop that ends early leaves the round."""
        events = self._client.run(max_rounds)

        async def following() -> Event | None:
            return await anext(events, None)

        try:
            while (event := self._wait(following())) is not None:
                yield event
        finally:
            self._wait(events.aclose())

    def run_to_end(self, max_rounds: int | None = None, on_event: Callable[[Event], None] | None = None) -> None:
        """Like `Client.run_to_end`; `on_event` is called in the client's thread."""
        self._wait(self._client.run_to_end(max_rounds, on_event))

    def pause(self, until: datetime | None = None) -> None:
        """Like `Client.pause`."""
        self._client.pause(until)

    def resume(self) -> None:
        """Like `Client.resume`."""
        self._client.resume()

    def finish(self) -> None:
        """Like `Client.finish`."""
        self._client.finish()

    def agree(self, offer: TaskOffer, consent: Consent) -> Membership:
        """Like `Client.agree`."""
        return self._client.agree(offer, consent)

    def dry_run(self, offer: TaskOffer | None = None) -> DryRun:
        """Like `Client.dry_run`."""
        return self._wait(self._client.dry_run(offer))

    def latest_adapter(self) -> Path | None:
        """Like `Client.latest_adapter`."""
        return self._client.latest_adapter()

    def leave(self, *, erase: bool = False, offline: bool = False, new_key: bool = False) -> LeaveReceipt:
        """Like `Client.leave`."""
        return self._wait(self._client.leave(erase=erase, offline=offline, new_key=new_key))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # does nothing to work that has ended; Ctrl-C ends what is going on
            raise
