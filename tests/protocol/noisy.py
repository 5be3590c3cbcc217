"""Tasks with noise that are small enough to play."""

from typing import Any

from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import small_task


def noisy_task(
    members: int = 8, size: int = 8, *, privacy: dict[str, Any] | None = None, rounds: int = 1, **policy: Any
) -> TaskDocument:
    """Return a document whose clip of 1 is 127 ring steps; z = 2 and ten times the noise is no worry unless stated."""
    plain = small_task(members, size, rounds=rounds, **policy)
    values = plain.task.model_dump() | {
        "privacy": {"noise_multiplier": 2.0, **(privacy or {})},
        "encoding": plain.task.encoding.model_dump() | {"clip_norm": 1.0, "max_weight": 1},
    }
    return TaskDocument.model_validate(plain.model_dump() | {"task": values})
