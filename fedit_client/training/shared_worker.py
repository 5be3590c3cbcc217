"""The training process of many clients: `python -m fedit_client.training.shared_worker`, started by SharedTrainer.

It trains one request after another on a base that it loads once. Requests wait in it, the next one's rows are turned
into tokens while one trains, and results leave it in a thread of their own: between two of them it waits for nobody.
"""

import queue
import threading
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.channel import WIRE_FLOAT, Channel, Json
from fedit_client.training.request import TrainingProgress
from fedit_client.training.room import run
from fedit_protocol.errors import DataError, DeviceError, FeditError
from fedit_protocol.task import TaskDocument


class Outgoing:
    """Writes to the parent in a thread of its own: a parent that is busy does not hold up the training."""

    def __init__(self, channel: Channel) -> None:
        """Start the thread."""
        self._channel = channel
        self._waiting: queue.Queue[tuple[str, bytes, dict[str, Any]]] = queue.Queue()
        threading.Thread(target=self._write, daemon=True).start()

    def put(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Leave a line, and the bytes behind it, to the thread."""
        self._waiting.put((kind, payload, fields))

    def flush(self) -> None:
        """Wait until everything is written."""
        self._waiting.join()

    def _write(self) -> None:
        while True:
            kind, payload, fields = self._waiting.get()
            if payload:
                self._channel.send_with(payload, kind, **fields)
            else:
                self._channel.send(kind, **fields)
            self._waiting.task_done()


class Incoming:
    """The requests that wait, in their order, and which of them nobody wants any more."""

    def __init__(self, channel: Channel) -> None:
        """Hold nothing yet."""
        self._channel = channel
        self._requests: deque[Json] = deque()
        self._unwanted: set[int] = set()

    def next(self) -> Json:
        """Wait for the next request that is still wanted."""
        while True:
            self._look()
            while not self._requests:
                self._take(self._channel.receive())
            message = self._requests.popleft()
            if message["id"] not in self._unwanted:
                return message
            self._unwanted.discard(message["id"])

    @property
    def waiting(self) -> Json | None:
        """The request that comes next, as far as is known; None where none waits."""
        return next((message for message in self._requests if message["id"] not in self._unwanted), None)

    def is_wanted(self, number: int) -> bool:
        """Say whether somebody still waits for the request of this number."""
        self._look()
        return number not in self._unwanted

    def done(self, number: int) -> None:
        """Forget a request."""
        self._unwanted.discard(number)

    def _look(self) -> None:
        while self._channel.has_news():
            self._take(self._channel.receive())

    def _take(self, message: Json) -> None:
        if message["kind"] == "cancel":
            self._unwanted.add(message["id"])
        else:
            self._requests.append(message)


class UnwantedError(Exception):
    """Nobody waits for this run any more."""


def serve(channel: Channel, _first: Json, plan: DevicePlan) -> None:
    """Train what comes until the parent is gone. What one request did wrong is told of it alone; no memory ends all."""
    from fedit_client.training.ahead import Ahead
    from fedit_client.training.resident import ResidentBase

    resident, incoming, outgoing, ahead = ResidentBase(plan), Incoming(channel), Outgoing(channel), Ahead(plan)
    try:
        while True:
            message = incoming.next()
            number = message["id"]
            try:
                _answer(resident, message, incoming, outgoing, ahead)
            except UnwantedError:
                pass
            except FeditError as error:
                if not _is_of_one_request(error):
                    raise
                told: Json = {"message": str(error), "code": error.code, "where": error.where, "fix": error.fix}
                outgoing.put("failed", id=number, error=type(error).__name__, **told)
            incoming.done(number)
    finally:
        outgoing.flush()


def _answer(resident: Any, message: Json, incoming: Incoming, outgoing: Outgoing, ahead: Any) -> None:
    number = message["id"]
    if message["kind"] == "warm":
        resident.hold(TaskDocument.model_validate(message["document"]), Path(message["base"]))
        outgoing.put("warm", id=number)
        return
    request, rows = ahead.take(message)

    def tell(progress: TrainingProgress) -> None:
        outgoing.put("progress", id=number, **asdict(progress))

    result = resident.train(request, tell, _Between(incoming, ahead, number), rows)
    told = {name: value for name, value in vars(result).items() if name != "update"}
    outgoing.put("result", result.update.astype(WIRE_FLOAT).tobytes(), id=number, **told)


class _Between:
    """A Keeper that keeps nothing: between two steps it begins with the next request, and breaks off a run that nobody
    waits for any more."""

    def __init__(self, incoming: Incoming, ahead: Any, number: int) -> None:
        self._incoming, self._ahead, self._number = incoming, ahead, number

    def saved(self, binding: str) -> None:
        """Return nothing: every run begins at its beginning."""

    def between_steps(self, run: Any) -> float:
        """Go on at once, or raise UnwantedError."""
        if not self._incoming.is_wanted(self._number):
            raise UnwantedError
        following = self._incoming.waiting
        if following is not None and following["kind"] == "train":
            self._ahead.begin(following)
        return 0.0


def _is_of_one_request(error: FeditError) -> bool:
    """Rows that cannot be trained on, or a run that diverged, say nothing about the next request."""
    return isinstance(error, DataError) or (isinstance(error, DeviceError) and error.code == "H010")


if __name__ == "__main__":
    run(serve)
