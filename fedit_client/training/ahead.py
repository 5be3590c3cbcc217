"""The rows of the request that waits, turned into tokens by a thread of its own while the one before it trains."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.channel import Json
from fedit_client.training.request import TrainingRequest
from fedit_client.training.rows import Rows, rows_of
from fedit_client.training.tokenizer import load_tokenizer
from fedit_client.training.worker import request_of


class Ahead:
    """One request at a time. The thread has a tokenizer of its own: one that two threads share breaks."""

    def __init__(self, plan: DevicePlan) -> None:
        """Prepare under this plan; of the plan that a request names only its steps and its rank count."""
        self._plan = plan
        self._thread = ThreadPoolExecutor(1)
        self._begun: tuple[int, Future[tuple[TrainingRequest, Rows]]] | None = None
        self._tokenizer: tuple[Path, Any] | None = None

    def begin(self, message: Json) -> None:
        """Begin with a request to train, unless that was done."""
        if self._begun is None or self._begun[0] != message["id"]:
            self._begun = message["id"], self._thread.submit(self._prepare, message)

    def take(self, message: Json) -> tuple[TrainingRequest, Rows | None]:
        """Return a request, and its rows if they were begun with; raises as `tokenize` if they were."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] != message["id"]:
            return request_of(message, self._plan), None
        return begun[1].result()

    def _prepare(self, message: Json) -> tuple[TrainingRequest, Rows]:
        request = request_of(message, self._plan)
        if self._tokenizer is None or self._tokenizer[0] != request.base:
            self._tokenizer = request.base, load_tokenizer(request.base)
        return request, rows_of(request, self._tokenizer[1])
