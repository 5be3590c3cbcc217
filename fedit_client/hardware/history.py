"""What this machine has shown: how fast it trained, how much memory that took, which rungs it had to take.

One file, `machine.json`, that only the running client writes and nothing but this program reads. It holds no rows, and
losing it costs nothing: the next round measures again.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fedit_client.hardware.plan import DevicePlan
from fedit_client.home.durable import write_atomic
from fedit_protocol.task import TaskDocument

_SCHEMA: Final = 1
_MOST_ENTRIES: Final = 32
_MORE_FREE: Final = 1.25
"""With so many times the memory free that was free when a rung was taken, the rung is forgotten."""


@dataclass(frozen=True)
class Run:
    """What one round's training took: real tokens a second, seconds beside the training steps, peak bytes."""

    tokens_per_second: float
    seconds_besides: float
    peak_bytes: int
    estimated_bytes: int
    recipe: tuple[int, bool, int, str, int]
    """The values of the ladder that it ran with."""


@dataclass(frozen=True)
class Taken:
    """The rung that a device stands on, and the memory that was free when it was taken."""

    recipe: tuple[int, bool, int, str, int]
    free_bytes: int


@dataclass
class MachineHistory:
    """The file; an unreadable one is an empty one."""

    path: Path
    _values: dict[str, dict[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            values = json.loads(self.path.read_text("utf-8"))
            self._values = values if values["schema"] == _SCHEMA else _empty()
        except (OSError, ValueError, KeyError, TypeError):
            self._values = _empty()

    def run_of(self, document: TaskDocument, plan: DevicePlan) -> Run | None:
        """Return what the last round of this base on this device took, or None."""
        try:
            found = self._values["runs"][_key(document, plan)]
            return Run(**{**found, "recipe": _recipe_from(found["recipe"])})
        except (KeyError, TypeError, ValueError):
            return None

    def note_run(self, document: TaskDocument, plan: DevicePlan, run: Run) -> None:
        """Remember a round; raises StorageError if the file cannot be written."""
        self._note("runs", _key(document, plan), asdict(run))

    def note_rung(self, document: TaskDocument, plan: DevicePlan) -> None:
        """Remember the rung that a plan stands on; raises StorageError."""
        self._note("rungs", _key(document, plan), asdict(Taken(recipe_of(plan), plan.available_bytes)))

    def lowered(self, document: TaskDocument, plan: DevicePlan) -> DevicePlan:
        """Return the plan on the rung that this device took before, unless far more memory is free now."""
        try:
            found = self._values["rungs"][_key(document, plan)]
            taken = Taken(_recipe_from(found["recipe"]), int(found["free_bytes"]))
        except (KeyError, TypeError, ValueError):
            return plan
        if plan.available_bytes > taken.free_bytes * _MORE_FREE:
            return plan
        rows, checkpointing, chunk, optimizer, tokens = taken.recipe
        return replace(
            plan,
            micro_batch_size=_less(plan.micro_batch_size, rows),
            checkpointing=plan.checkpointing or checkpointing,
            loss_chunk=_less(plan.loss_chunk, chunk),
            optimizer="paged_adamw_8bit" if optimizer or plan.optimizer else "",
            # The task may have been changed since: its range still counts.
            max_tokens=max(document.task.prompt.least_tokens, less) if (less := _less(plan.max_tokens, tokens)) else 0,
        )

    def _note(self, table: str, key: str, value: dict[str, Any]) -> None:
        entries = self._values[table]
        entries.pop(key, None)
        entries[key] = value
        while len(entries) > _MOST_ENTRIES:
            entries.pop(next(iter(entries)))
        write_atomic(self.path, json.dumps(self._values, indent=1).encode())


def recipe_of(plan: DevicePlan) -> tuple[int, bool, int, str, int]:
    """Return the values of a plan that the ladder changes."""
    return (plan.micro_batch_size, plan.checkpointing, plan.loss_chunk, plan.optimizer, plan.max_tokens)


def _recipe_from(values: list[Any]) -> tuple[int, bool, int, str, int]:
    rows, checkpointing, chunk, optimizer, tokens = values
    return (int(rows), bool(checkpointing), int(chunk), str(optimizer), int(tokens))


def _less(one: int, other: int) -> int:
    """The smaller of two values of which 0 means none."""
    return min(one, other) if one and other else one or other


def _key(document: TaskDocument, plan: DevicePlan) -> str:
    base, tokens = document.task.base.digest.removeprefix("sha256:")[:16], document.task.prompt.cutoff_tokens
    return f"{base} {plan.quantization} {plan.kind} {plan.name} {tokens} x {document.task.training.micro_batch_size}"


def _empty() -> dict[str, Any]:
    return {"schema": _SCHEMA, "runs": {}, "rungs": {}}
