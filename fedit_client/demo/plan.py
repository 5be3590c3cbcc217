"""What the demo works with: three shards and held-out rows, a task file, and a pace that this machine can keep."""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tomlkit

from fedit_client.data import Record, read_records
from fedit_client.demo.rows import CLIENTS, client_rows, held_out_rows, task_file
from fedit_client.home.durable import write_atomic
from fedit_protocol.errors import DataError

_HELD_OUT_SHARE: Final = 0.1
_MOST_HELD_OUT: Final = 60
_FEWEST_ROWS: Final = 12
_SKEW: Final = 5  # of this many rows of a category, one goes to each of the others and the rest to its own client
_BUDGET_S: Final = 420.0
_FEWEST_STEPS: Final = 2
_FEWEST_ROUNDS: Final = 2


@dataclass(frozen=True)
class DemoRows:
    """A file per client, and the rows that nobody trains on."""

    shards: dict[str, Path]
    held_out: tuple[Record, ...]


@dataclass(frozen=True)
class Pace:
    """How much is trained: rounds of the federation, optimizer steps of one client in a round."""

    rounds: int
    steps: int


def bundled_rows(stack: ExitStack) -> DemoRows:
    """The rows that come with the package; their paths live as long as the stack."""
    shards = {client: stack.enter_context(client_rows(client)) for client in CLIENTS}
    return DemoRows(shards, read_records(stack.enter_context(held_out_rows())).records)


def split_rows(path: Path, folder: Path) -> DemoRows:
    """Share a file's rows among three clients, skewed by category where there are any, and hold some out.

    Raises DataError, D021 if there are too few rows.
    """
    rows = read_records(path)
    if len(rows.records) < _FEWEST_ROWS:
        raise DataError(f"{len(rows.records)} rows are too few for three clients and a comparison", code="D021",
                        where=str(path), fix=f"give {_FEWEST_ROWS} rows or more; some hundred are better")  # fmt: skip
    held_out: list[Record] = []
    shares: dict[str, list[Record]] = {client: [] for client in CLIENTS}
    for number, group in enumerate(rows.by_category().values()):
        count = min(max(1, round(len(group) * _HELD_OUT_SHARE)), _MOST_HELD_OUT)
        # Spread over the file rather than taken from its end: files are often sorted.
        step = max(1, len(group) // count)
        kept_back = set(range(0, step * count, step))
        held_out += [record for place, record in enumerate(group) if place in kept_back]
        _deal([record for place, record in enumerate(group) if place not in kept_back], number, shares)
    files = {client: _write(records, folder / f"{client}.jsonl") for client, records in shares.items()}
    return DemoRows(files, tuple(held_out))


def demo_task() -> dict[str, Any]:
    """The bundled task as plain values."""
    with task_file() as path:
        return tomlkit.parse(path.read_text("utf-8")).unwrap()


def task_text(task: dict[str, Any], model: str, pace: Pace) -> str:
    """Return the task file of this run."""
    changed = {
        **task,
        "base": {**task["base"], "model": model},
        "training": {**task["training"], "local_steps": pace.steps},
        "round": {**task["round"], "rounds": pace.rounds},
    }
    return tomlkit.dumps(changed)


def fitting_pace(wanted: Pace, step_s: float, load_s: float, cores: int) -> Pace:
    """Return the wanted pace, or a smaller one whose estimated time stays within some minutes.

    `step_s` and `load_s` are one client's seconds for a step and for starting a training process, on one core.
    """
    rounds, together = wanted.rounds, max(1, min(cores, len(CLIENTS)))

    def seconds(rounds: int, steps: int) -> float:
        # Each client trains each round twice: in the federation, and alone.
        return 2 * rounds * math.ceil(len(CLIENTS) / together) * (load_s + steps * step_s)

    steps = wanted.steps
    while seconds(rounds, steps) > _BUDGET_S and (steps > _FEWEST_STEPS or rounds > _FEWEST_ROUNDS):
        if steps > _FEWEST_STEPS:
            steps = max(_FEWEST_STEPS, min(steps - 1, round(steps * 0.9)))
        else:
            rounds -= 1
    return replace(wanted, rounds=rounds, steps=steps)


def _deal(group: Sequence[Record], number: int, shares: dict[str, list[Record]]) -> None:
    """Most rows of a category go to one client; without categories everybody gets a third."""
    own = number % len(CLIENTS)
    for place, record in enumerate(group):
        other = place % _SKEW < len(CLIENTS) - 1 and bool(record.category)
        index = (own + 1 + place % _SKEW) % len(CLIENTS) if other else own if record.category else place % len(CLIENTS)
        shares[CLIENTS[index]].append(record)


def _write(records: Sequence[Record], path: Path) -> Path:
    lines = []
    for record in records:
        turns = [{"role": message.role.value, "content": message.content} for message in record.messages]
        lines.append(json.dumps({"messages": turns, "category": record.category}, ensure_ascii=False))
    write_atomic(path, "\n".join(lines).encode() + b"\n")
    return path
