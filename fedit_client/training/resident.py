"""A base that stays loaded: one process trains one request after another, of any clients and rounds of a task."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.local import Loaded, load, train_here
from fedit_client.training.ranks import adapter_at
from fedit_client.training.request import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.rows import Rows
from fedit_client.training.run import Keeper
from fedit_protocol.task import TaskDocument


def _quiet(_progress: TrainingProgress) -> None:
    """Tell nobody."""


class ResidentBase:
    """Loads a base when it is first asked for, and keeps it; each request brings its own adapter, rows and seed.

    Nothing of one request is left for the next, so each gives the same bits as in a process of its own.
    """

    def __init__(self, plan: DevicePlan) -> None:
        """Train under this plan; of the plan that a request names only its steps and its rank count."""
        self._plan = plan
        self._holds: tuple[Any, ...] | None = None
        self._loaded: Loaded | None = None

    def hold(self, document: TaskDocument, base: Path, plan: DevicePlan | None = None) -> Loaded:
        """Return the base with this task's adapter on it at the plan's rank, loaded unless it is held already.

        Of another base, adapter, rank or method the one before is dropped first: two never fit where one does. Raises
        ModelError, TaskRefusedError.
        """
        task, plan = document.task, plan or self._plan
        wanted = base, task.base.digest, adapter_at(document, plan.rank), task.method, document.layout
        if self._loaded is None or wanted != self._holds:
            self._loaded = self._holds = None
            gc.collect()
            self._loaded, self._holds = load(document, base, plan), wanted
        return self._loaded

    def train(
        self,
        request: TrainingRequest,
        on_progress: Callable[[TrainingProgress], None] = _quiet,
        keeper: Keeper | None = None,
        rows: Rows | None = None,
    ) -> LocalResult:
        """Train from the request's global adapter; raises what `train_here` raises, and whatever the keeper does."""
        plan = self._plan.serving(request.plan)
        loaded = self.hold(request.document, request.base, plan)
        try:
            return train_here(loaded, replace(request, plan=plan), on_progress, keeper, rows=rows)
        finally:
            # A run that was broken off may have left half a gradient.
            loaded.model.zero_grad(set_to_none=True)
