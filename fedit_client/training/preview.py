"""What training will see of rows, token by token: asked of a process of its own, so that nothing heavy loads here."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedit_client.data import Record
from fedit_client.data.findings import Sized
from fedit_protocol.errors import DataError, DeviceError, FeditError, ModelError, TaskRefusedError
from fedit_protocol.task import PromptSpec

_ERRORS: Final[dict[str, type[FeditError]]] = {
    kind.__name__: kind for kind in (DataError, ModelError, TaskRefusedError)
}


@dataclass(frozen=True)
class Stretch:
    """Some text of a rendered row, and what happens to it: `given`, `trained` or `cut`."""

    text: str
    kind: str


@dataclass(frozen=True)
class TokenView:
    """The size of every row in tokens, and the rows that were to be shown, in turn.

    Rows that the template does not take stand in `refused` by their places; their size is 0, and nothing is shown.
    """

    sizes: tuple[Sized, ...]
    shown: tuple[tuple[Stretch, ...], ...]
    refused: Mapping[int, DataError] = field(default_factory=dict)


def view_tokens(records: Sequence[Record], base: Path, prompt: PromptSpec, shown: Sequence[int] = ()) -> TokenView:
    """Tokenise records as training would, but for the cut; `shown` are the places of rows to render whole.

    Raises ModelError, TaskRefusedError like `tokenize`; DeviceError H005 without the libraries, H004 for a failure.
    """
    request = {
        "base": str(base),
        "prompt": prompt.model_dump(mode="json"),
        "records": [record.to_json() for record in records],
        "shown": list(shown),
    }
    told = _ask(request)
    if "error" in told:
        name, message, code, where, fix = told["error"]
        raise _ERRORS.get(name, DeviceError)(message, code=code, where=where, fix=fix)
    return TokenView(
        tuple(Sized(size, trained, bool(useless)) for size, trained, useless in told["sizes"]),
        tuple(tuple(Stretch(*stretch) for stretch in row) for row in told["shown"]),
        {place: DataError(reason, code=code) for place, code, reason in told["refused"]},
    )


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    changed = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # The child must find the very code that runs here, also where it was put on sys.path by hand.
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fedit_client.training.showing"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        encoding="ascii",
        errors="replace",
        env={**os.environ, **changed, **path},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if "ModuleNotFoundError" in last:
            raise DeviceError("counting tokens needs the tokenizer's libraries, which are not installed", code="H005",
                              where=last, fix='pip install "fedit[train]"')  # fmt: skip
        raise DeviceError("the process that counts tokens failed", code="H004", where=last)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
