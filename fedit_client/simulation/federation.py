"""The rounds of a simulated federation: who takes part, local training, the sum, the next adapter; kept after each."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any, Final

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from fedit_client.data import Record
from fedit_client.home.durable import write_atomic
from fedit_client.records.own_part import read_left, write_left, write_sent
from fedit_client.rounds.contribution import contribution, sent_part
from fedit_client.simulation.carriers import Carrier, Given, carried
from fedit_client.simulation.learner import LocalWork, Trains
from fedit_client.training.request import LocalResult
from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError
from fedit_protocol.methods import RoundStart, State
from fedit_protocol.round_plan import cohort_rules, sum_specs
from fedit_protocol.secagg.blocks import open_among
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode, TaskDocument

_STATE: Final = "state.safetensors"
_ROWS: Final = "rows "
"""How training names its count of a domain's rows, before the domain's own name."""
_PUBLIC, _KEPT, _ADAPTER = "public/", "kept/", "adapter"

Tamper = Callable[[int, int, Vector], Vector]
"""Round, client's place and its update → what it sends instead: for experiments with clients that lie."""


@dataclass(frozen=True)
class VirtualClient:
    """One client, the rows that it may train on, and its rank in a task of nested ranks, 0 being the task's."""

    name: str
    records: Sequence[Record] = field(repr=False)
    rank: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a federation is after some rounds; `notes` has one mapping of figures for each round."""

    version: int
    adapter: Vector = field(repr=False)
    public: State = field(default_factory=dict, repr=False)
    kept: State = field(default_factory=dict, repr=False)
    notes: tuple[Mapping[str, Any], ...] = ()


Choice = Callable[[int, Progress], Sequence[int]]
"""Round counted from 0, and where the federation is → the places of the clients that take part."""


@dataclass(frozen=True)
class Federation:
    """A task, its virtual clients, and a folder that holds the newest state: a run that was killed goes on from it."""

    document: TaskDocument
    clients: Sequence[VirtualClient]
    folder: Path
    seed: int = 0
    carrier: Carrier = Carrier.RING
    choose: Choice | None = None
    """Who takes part; everybody without it."""
    tamper: Tamper | None = None

    def run(self, learner: Trains, after_round: Callable[[Progress], Mapping[str, Any]] | None = None) -> Progress:
        """Run the rounds that are still to do; `after_round` returns figures to note. Deterministic by `seed`."""
        progress = self.saved() or self.begun()
        while progress.version < self.document.task.round.rounds:
            begun = monotonic()
            progress = self.one_round(learner, progress)
            note = {**progress.notes[-1], "seconds": monotonic() - begun}
            if after_round is not None:
                note |= after_round(progress)
            progress = replace(progress, notes=(*progress.notes[:-1], note))
            self.keep(progress)
        return progress

    def begun(self) -> Progress:
        """Return where every federation of this task begins."""
        return Progress(0, first_adapter(self.document.layout, self.document.task.adapter.seed))

    def one_round(self, learner: Trains, progress: Progress) -> Progress:
        """Return the progress after one more round."""
        number = progress.version
        context0 = hash_parts("simulated round", self.seed.to_bytes(8, "big"), number.to_bytes(8, "big"))
        start = RoundStart(self.document, number, progress.adapter, context0, progress.public, progress.kept)
        self._hand_over_own(number)
        chosen = list(self.choose(number, progress)) if self.choose else list(range(len(self.clients)))
        opened = open_rank(self.document, [self.clients[place].rank for place in chosen])
        cohort = [self._trained(learner, number, place, start, opened) for place in chosen]
        moved = carried(start, cohort, self.carrier, context0)
        losses = [one.first.report.train_loss for one in cohort]
        note = {"round": number + 1, "chosen": chosen, "losses": losses, "train_loss": fmean(losses), **moved.figures}
        if self.document.task.fairness is not None:
            note["cut_weights"] = sum(one.first.cut for one in cohort)
        return Progress(number + 1, moved.adapter, moved.public, moved.kept, (*progress.notes, note))

    def own_folder(self, version: int, client: VirtualClient) -> Path:
        """Return where a client has what never leaves it, as it is beside a version."""
        return self.folder / f"own-{version}" / client.name

    def _trained(self, learner: Trains, number: int, place: int, start: RoundStart, opened: int | None) -> Given:
        """Let one client train in a round; slices from rank `opened` on are sent by nobody."""
        client = self.clients[place]
        own = self.own_folder(number + 1, client)
        work = LocalWork(client.records, train_seed(self.seed, number, client.name), own, client.rank)
        found = learner.train(work, start)
        update = self.tamper(number, place, found.update) if self.tamper else found.update
        local = replace(standing_for(found, client), update=update)
        sends = None if opened is None else min(opened, client.rank or opened)
        made = contribution(local, start, read_left(own, number), open_rank=sends)
        if made.left:
            write_left(own, number, made.left)
        if (part := sent_part(made.message, made.weight, start)) is not None:
            write_sent(own, part)
        return Given(update, made)

    def keep(self, progress: Progress) -> None:
        """Write the state in one step, then forget what clients had of their own the round before."""
        tensors = {_ADAPTER: progress.adapter}
        tensors |= {f"{_PUBLIC}{name}": np.ascontiguousarray(array) for name, array in progress.public.items()}
        tensors |= {f"{_KEPT}{name}": np.ascontiguousarray(array) for name, array in progress.kept.items()}
        told = {"version": progress.version, "notes": list(progress.notes), "task": self.document.digest}
        write_atomic(self.folder / _STATE, save(tensors, {"progress": json.dumps(told)}), flush=False)
        shutil.rmtree(self.folder / f"own-{progress.version - 1}", ignore_errors=True)

    def saved(self) -> Progress | None:
        """Return the newest state of this very task, or None; raises ConfigError F020 if the folder has another's."""
        file = self.folder / _STATE
        if not file.is_file():
            return None
        with safe_open(file, "np") as opened:
            told = json.loads(opened.metadata()["progress"])
        if told["task"] != self.document.digest:
            raise ConfigError(
                "this folder holds a run of another task",
                code="F020",
                where=str(self.folder),
                fix="name another folder, or delete this one",
            )
        tensors = load_file(file)
        parts: dict[str, dict[str, Any]] = {_PUBLIC: {}, _KEPT: {}}
        for name, array in tensors.items():
            kind, _, own = name.partition("/")
            if own:
                parts[f"{kind}/"][own] = array
        return Progress(told["version"], tensors[_ADAPTER], parts[_PUBLIC], parts[_KEPT], tuple(told["notes"]))

    def _hand_over_own(self, number: int) -> None:
        """Give clients what they kept for themselves, as a copy: a round that is done anew starts from the same."""
        before, now = self.folder / f"own-{number}", self.folder / f"own-{number + 1}"
        shutil.rmtree(now, ignore_errors=True)
        if before.is_dir():
            shutil.copytree(before, now)


def open_rank(document: TaskDocument, ranks: Sequence[int]) -> int | None:
    """Return up to which rank a cohort of these ranks sends slices, 0 being the task's; None without nested ranks."""
    if not document.task.adapter.ranks or document.task.round.mode is Mode.TRUSTED:
        return None
    blocks = sum_specs(document)[0].ring.blocks
    if blocks is None:
        raise RuntimeError("the ring of a task of nested ranks has no blocks")
    thresholds = Thresholds.of(len(ranks), cohort_rules(document.task))
    return open_among(blocks, thresholds, [rank or document.task.adapter.rank for rank in ranks])


def standing_for(found: LocalResult, client: VirtualClient) -> LocalResult:
    """Return a result with the counts of all rows of a client: a round is given no more of them than its steps need."""
    of = Counter(record.category for record in client.records)
    rows = {name: float(of[name.removeprefix(_ROWS)]) for name in found.statistics if name.startswith(_ROWS)}
    return replace(found, examples=len(client.records), statistics={**found.statistics, **rows})


def train_seed(seed: int, number: int, client: str) -> bytes:
    """Return what decides the rows and the dropout of one client in a round counted from 0."""
    return hashlib.sha256(f"train/{seed}/{number}/{client}".encode()).digest()
