"""Down the ladder while a trainer works: which plan comes next when memory ran out, and what is remembered of it."""

from contextlib import suppress
from dataclasses import replace

from fedit_client.hardware.estimate import estimated
from fedit_client.hardware.history import MachineHistory, Run, recipe_of
from fedit_client.hardware.ladder import lower, too_little
from fedit_client.hardware.plan import DevicePlan
from fedit_client.training.request import LocalResult, OnProgress, TrainingProgress, TrainingRequest
from fedit_protocol.errors import DeviceError, StorageError


class Descent:
    """Where one trainer stands on the ladder, for each task that it trains."""

    def __init__(self, history: MachineHistory | None) -> None:
        """Begin on the top rung, or where `history` says that this device stood before."""
        self._history = history
        self._stands: dict[str, DevicePlan] = {}

    def begun(self, request: TrainingRequest) -> TrainingRequest:
        """Return the request with the plan that the last round of its task ended with."""
        stands = self._stands.get(request.document.digest)
        same = stands is not None and (stands.device, stands.quantization) == (
            request.plan.device,
            request.plan.quantization,
        )
        return replace(request, plan=stands) if stands and same else request

    def again(self, request: TrainingRequest, error: DeviceError, on_progress: OnProgress) -> TrainingRequest:
        """Return the request one rung lower, after a note that says so; raises `error`, or H003 below the last rung."""
        if error.code != "H003":
            raise error
        document = request.document
        if (rung := lower(document, estimated(document, request.plan))) is None:
            raise too_little(document, estimated(document, request.plan)) from error
        self._stands[document.digest] = rung.plan
        if self._history is not None:
            with suppress(StorageError):  # remembered in this process all the same
                self._history.note_rung(document, rung.plan)
        on_progress(TrainingProgress("adapt", 0, 1, note=f"out of memory: {rung.text}"))
        return replace(request, plan=rung.plan)

    def done(self, request: TrainingRequest, result: LocalResult) -> None:
        """Remember what a round took."""
        if self._history is None or not result.tokens_per_second:
            return
        training_s = result.tokens / result.tokens_per_second
        run = Run(
            tokens_per_second=result.tokens_per_second,
            seconds_besides=max(0.0, result.seconds - training_s),
            peak_bytes=result.peak_bytes,
            estimated_bytes=request.plan.estimated_bytes,
            recipe=recipe_of(request.plan),
        )
        with suppress(StorageError):  # a disk that is full is no reason to lose a round's work
            self._history.note_run(request.document, request.plan, run)
