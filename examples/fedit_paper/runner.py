"""One run: the federation of a row, measured on the test rows; its result is a file that is never made twice."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Final

import numpy as np

from fedit_client.base.digest import digest_folder
from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.home.durable import write_atomic
from fedit_client.simulation import Carrier, Federation, Figures, Learner, Progress, VirtualClient, document_of
from fedit_client.simulation.traffic import bytes_down, bytes_up
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import TaskDocument

from .choices import choice_of, covered
from .data import OTHERS, Deal, Dolly, Places, other_records
from .lies import poisoned, tamper_of, triggered, untriggered
from .plan import Profile, Row, Run

SCHEMA: Final = "fedit.paper/1"
RESULT: Final = "result.json"
Result = dict[str, Any]


@dataclass
class Bench:
    """What the runs of one process share: the data, the base, and the learner of the last task."""

    profile: Profile
    base: Path
    plan: DevicePlan
    data: Path
    out: Path
    curve: bool = False
    _learner: tuple[str, Learner] | None = field(default=None, repr=False)
    _deals: dict[str, Deal] = field(default_factory=dict[str, Deal], repr=False)

    @cached_property
    def dolly(self) -> Dolly:
        """The data set, read once."""
        return Dolly(self.data)

    @cached_property
    def sets(self) -> dict[str, tuple[Record, ...]]:
        """What models are measured on: the test rows, validation rows that tuning may look at, and other data sets.

        The test rows once more with the answer that a lying client wants, behind its trigger and without it.
        """
        found = {name: self.dolly.records(rows) for name, rows in self.dolly.held.items()}
        found |= {name: other_records(self.data, name) for name in OTHERS}
        found |= {"triggered": triggered(found["test"]), "untriggered": untriggered(found["test"])}
        most = self.profile.most_measured
        return {name: rows[:: max(1, -(-len(rows) // most))] for name, rows in found.items()} if most else found

    def result(self, run: Run) -> Result:
        """Return the run's result: from its file if there is one, else run it, or what is left of it.

        Raises ConfigError F025 if the file is of a run with other settings.
        """
        folder = self.out / "runs" / run.name
        task = run.task(self.profile, self._digest)
        document = document_of(task, self.base)
        settings = self._settings(run, document)
        if (folder / RESULT).is_file():
            found: Result = json.loads((folder / RESULT).read_text("utf-8"))
            if found["settings"] != settings:
                raise ConfigError(
                    f"the result of {run.name} is there already, made with other settings",
                    code="F025",
                    where=str(folder),
                    fix="name another folder with --out, or delete this one",
                )
            return found
        found = self._run(run, document, folder)
        found = {"schema": SCHEMA, "name": run.name, "settings": settings, **found}
        write_atomic(folder / RESULT, json.dumps(found).encode(), 0o644)
        shutil.rmtree(folder / "state", ignore_errors=True)
        return found

    def prepared(self, row: Row, seed: int) -> tuple[TaskDocument, Learner, list[VirtualClient]]:
        """Return a row's document, a learner for it, and its clients."""
        run = Run(row, seed)
        document = document_of(run.task(self.profile, self._digest), self.base)
        learner = self._learner_for(document)
        return document, learner, self._clients(run, document, learner)

    def _run(self, run: Run, document: TaskDocument, folder: Path) -> Result:
        begun, learner = monotonic(), self._learner_for(document)
        progress = Progress(0, np.zeros(0, np.float32))
        if run.row.kind != "base":
            federation = self._federation(run, document, learner, folder)
            progress = federation.run(learner, lambda now: self._noted(learner, federation, run.row, now))
        told = self._told(run, document, progress)
        adapter = progress.adapter if run.row.kind != "base" else None
        sets = {name: self.sets[name] for name in run.row.measured}
        figures = {
            name: rows_told(learner.measure(adapter, rows, progress.public), rows) for name, rows in sets.items()
        }
        return {**told, "figures": figures, "seconds": monotonic() - begun}

    def _federation(self, run: Run, document: TaskDocument, learner: Learner, folder: Path) -> Federation:
        clients = self._clients(run, document, learner)
        alone = len(clients) == 1
        return Federation(
            document,
            clients,
            folder / "state",
            seed=run.seed,
            carrier=Carrier.FLOAT if alone else Carrier(run.row.carrier),
            choose=None if alone else choice_of(run.row.choose, clients, run.seed),
            tamper=tamper_of(run.row.attack, document),
        )

    def _clients(self, run: Run, document: TaskDocument, learner: Learner) -> list[VirtualClient]:
        partition = run.row.partition or self.profile.partition
        if partition not in self._deals:
            self._deals[partition] = self.dolly.deal(partition)
        usable = self._usable(document, learner)
        deal = self._deals[partition].clients
        every = {f"client {place}": np.intersect1d(rows, usable) for place, rows in enumerate(deal)}
        row = run.row
        places = (
            [run.client]
            if run.client is not None
            else range(len(deal))
            if isinstance(row.clients, str)
            else row.clients
        )
        every = {name: every[name] for name in (f"client {place}" for place in places)}
        if empty := next((name for name, rows in every.items() if not len(rows)), ""):
            raise ConfigError(
                f"no row of {empty} keeps an answer within {document.task.prompt.cutoff_tokens} tokens",
                code="F028",
                where=run.name,
                fix="raise task.prompt.cutoff_tokens in the profile",
            )
        if row.kind == "central":
            every = {"everybody": np.concatenate(list(every.values()))}
        clients = [VirtualClient(name, self.dolly.records(rows.tolist())) for name, rows in every.items()]
        return poisoned(row.attack, clients)

    def _usable(self, document: TaskDocument, learner: Learner) -> Places:
        """Rows of which the cutoff leaves an answer: found once for a prompt and a base, kept in a file."""
        of = f"{document.task.prompt.model_dump_json()}{document.task.base.digest}{self.dolly.corpus.digest}"
        file = self.out / "cache" / f"usable-{hashlib.sha256(of.encode()).hexdigest()[:16]}.json"
        if not file.is_file():
            found = learner.usable(self.dolly.records(range(len(self.dolly.corpus))))
            write_atomic(file, json.dumps(sorted(found)).encode(), 0o644)
        return np.array(json.loads(file.read_text("utf-8")), np.int64)

    def _learner_for(self, document: TaskDocument) -> Learner:
        """The learner of the run before, if the model would be built alike: loading takes longer than a short run."""
        task = document.task
        key = f"{task.adapter.model_copy(update={'seed': 0})}{task.method}{task.prompt}{task.base}"
        if self._learner is None or self._learner[0] != key:
            self._learner = None  # one base in memory at a time
            self._learner = (
                key,
                Learner(document, self.base, self.plan, self.out / "cache" / f"scratch-{os.getpid()}"),
            )
        return self._learner[1]

    def _noted(self, learner: Learner, federation: Federation, row: Row, progress: Progress) -> Mapping[str, Any]:
        """What a round's note says beside the engine's own figures."""
        chosen = progress.notes[-1]["chosen"]
        share: Result = {"coverage": covered(chosen, federation.clients)} if federation.choose else {}
        share["bytes_down"] = bytes_down(federation.document, progress.public)
        return {**share, **(self._curve(learner, progress) if row.curve or self.curve else {})}

    def _curve(self, learner: Learner, progress: Progress) -> Mapping[str, Any]:
        """The loss on validation and test rows, category by category."""
        sets = {name: self.sets[name] for name in ("test", "validation")}
        told = {
            name: rows_told(learner.measure(progress.adapter, rows, progress.public), rows)
            for name, rows in sets.items()
        }
        return {name: by_category(one) for name, one in told.items()}

    def _told(self, run: Run, document: TaskDocument, progress: Progress) -> Result:
        row, rounds = run.row, progress.version
        sent = row.kind == "federated"
        return {
            "row": row.name,
            "title": run.title,
            "experiment": row.experiment,
            "kind": row.kind,
            "variant": run.variant,
            "client": run.client,
            "seed": run.seed,
            "profile": self.profile.name,
            "device": self.plan.name,
            "machine": f"{platform.system()} {platform.machine()}",
            "rounds": list(progress.notes),
            "bytes_up": sum(bytes_up(document, version) for version in range(rounds)) if sent else 0,
            "bytes_down": sum(int(note["bytes_down"]) for note in progress.notes) if sent else 0,
            "adapter_norm": float(np.linalg.norm(progress.adapter)),
        }

    @cached_property
    def _digest(self) -> str:
        return digest_folder(self.base, self.out / "cache")

    def _settings(self, run: Run, document: TaskDocument) -> str:
        """A digest of everything that the result depends on, apart from the code and the device."""
        row = run.row
        parts = [document.digest, self.dolly.corpus.digest, row.partition or self.profile.partition, row.kind]
        parts += [str(row.clients), str(run.client), str(run.seed), str(row.choose), str(row.attack), row.carrier]
        return hash_parts("paper run", *parts).hex()


def rows_told(figures: Figures, records: Sequence[Record]) -> Result:
    """Return the figures of every row as plain values, rows in the order of the records; nats to six digits."""
    order = np.argsort(figures.places)
    places = [int(place) for place in figures.places[order]]
    return {
        "rows": [hashlib.sha256(repr(records[place].messages).encode()).hexdigest()[:16] for place in places],
        "categories": [records[place].category for place in places],
        "tokens": figures.tokens[order].tolist(),
        "losses": [round(float(loss), 6) for loss in figures.losses[order]],
        "right": figures.right[order].tolist(),
        "left_out": len(records) - len(places),
    }


def by_category(told: Mapping[str, Any]) -> dict[str, float]:
    """Return nats per answer token of each category."""
    categories, losses, tokens = np.array(told["categories"]), np.array(told["losses"]), np.array(told["tokens"])
    names = sorted(set(told["categories"]))
    return {name: float(losses[categories == name].sum() / tokens[categories == name].sum()) for name in names}
