"""A resident base in a process that another program keeps, on this machine or another one, such as an actor of Ray."""

import tempfile
from pathlib import Path
from typing import Any

from fedit_client.base.model import resolve_base
from fedit_client.home.paths import Paths
from fedit_client.records.own_part import own_files, write_own_files
from fedit_client.training.channel import WIRE_FLOAT, Json
from fedit_client.training.room import out_of_memory, plan_of
from fedit_client.training.worker import request_of
from fedit_protocol.errors import FeditError
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument

Files = dict[str, bytes]
"""Files by name, wherever they lie."""


class HostedBase:
    """Holds one base wherever it is made; what goes in and out is plain values and bytes, no path of the caller's."""

    def __init__(self, plan: Json, document: Json, base: str) -> None:
        """Find the base on this machine: the folder of the fleet's own, or the task's, by its digest."""
        import torch

        from fedit_client.training.quiet import quieten
        from fedit_client.training.resident import ResidentBase

        quieten()
        self._plan = plan_of(plan)
        torch.set_num_threads(self._plan.threads)
        self._document = TaskDocument.model_validate(document)
        self._base = _found(self._document, Path(base))
        self._resident = ResidentBase(self._plan)

    def train(self, message: Json, files: Files, own: Files | None = None) -> tuple[Json, bytes, Files]:
        """Train one request whose files come along, those of its own folder apart, None where it has none.

        Return the result's fields, its update as bytes, and the files of the own folder that training has written. What
        goes wrong is returned too, by its class's name in `error`: exceptions of ours do not survive every pickle.
        """
        from fedit_client.training.memory import is_out_of_memory

        try:
            return self._trained(message, files, own)
        except FeditError as error:
            return told_of(error), b"", {}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return told_of(out_of_memory(self._plan)), b"", {}

    def _trained(self, message: Json, files: Files, own: Files | None) -> tuple[Json, bytes, Files]:
        with tempfile.TemporaryDirectory(prefix="fedit-") as folder:
            here = {name: str(Path(folder) / f"{name}.safetensors") for name in files}
            for name, content in files.items():
                Path(here[name]).write_bytes(content)
            kept = Path(folder) / "own"
            write_own_files(kept, own or {})
            here |= {"base": str(self._base), "own": "" if own is None else str(kept)}
            result = self._resident.train(request_of({**message, **here}, self._plan))
            written = {name: raw for name, raw in own_files(kept).items() if raw != (own or {}).get(name)}
        told = {name: value for name, value in vars(result).items() if name != "update"}
        return told, result.update.astype(WIRE_FLOAT).tobytes(), written


def told_of(error: FeditError) -> dict[str, Any]:
    """Return an error as plain values."""
    told = {"message": str(error), "code": error.code, "where": error.where, "fix": error.fix}
    return {"error": type(error).__name__, **told}


def _found(document: TaskDocument, base: Path) -> Path:
    if base.is_dir():
        return base
    stated, cache = document.task.base, Paths.find(None).cache
    return resolve_base(
        stated.model, stated.revision, cache, most_bytes=Limits().max_base_bytes, expected=stated.digest or None
    )
