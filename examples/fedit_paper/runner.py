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
from fedit_protocol.adapter import first_adapter
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError
from fedit_protocol.methods import RoundStart
from fedit_protocol.methods.personal_parts import personal_shapes
from fedit_protocol.task import TaskDocument

from .checks import CHECKS
from .choices import choice_of, covered
from .data import OTHERS, other_records
from .lies import PLANTED_SETS, tamper_of, trainer_of
from .people import Cast, People
from .plan import Profile, Row, Run

SCHEMA: Final = "fedit.paper/1"
RESULT: Final = "result.json"
OWN: Final = "own"
"""The set of rows that each client kept apart, on which its own model is measured; a row's category is its client."""
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
    _rows: dict[str, tuple[Record, ...]] = field(default_factory=dict[str, tuple[Record, ...]], repr=False)

    @cached_property
    def people(self) -> People:
        """The data sets, and who has which of their rows."""
        return People(self.data, self.out / "cache")

    def rows(self, name: str) -> tuple[Record, ...]:
        """Return what models are measured on: the test rows, those that tuning may look at, or other data sets.

        `triggered` and `untriggered` are the test rows with the answer that a lying client wants, behind its trigger
        and without it.
        """
        if name not in self._rows:
            found, most = self._found(name), self.profile.most_measured
            self._rows[name] = found[:: max(1, -(-len(found) // most))] if most else found
        return self._rows[name]

    def _found(self, name: str) -> tuple[Record, ...]:
        if name in OTHERS:
            return other_records(self.data, name)
        if name in PLANTED_SETS:
            return PLANTED_SETS[name](self.rows("test"))
        source = self.people.source("languages" if name == "languages" else "")
        return source.records(source.held[name])

    def result(self, run: Run) -> Result:
        """Return the run's result: from its file if there is one, else run it, or what is left of it.

        Raises ConfigError F025 if the file is of a run with other settings.
        """
        folder = self.out / "runs" / run.name
        document = self._document(run)
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

    def stands_for(self, told: Mapping[str, Any], run: Run) -> bool:
        """Say whether a result is of this very run, and was measured on every set of rows that its row asks for."""
        settings: str = told["settings"]
        whole = set(run.row.measured) <= told["figures"].keys()
        return whole and settings == self._settings(run, self._document(run))

    def prepared(self, row: Row, seed: int) -> tuple[TaskDocument, Learner, list[VirtualClient]]:
        """Return a row's document, a learner for it, and its clients."""
        run = Run(row, seed)
        document = self._document(run)
        learner = self._learner_for(document)
        return document, learner, self.people.cast(run, self.profile, document, learner).clients

    def _document(self, run: Run) -> TaskDocument:
        return document_of(run.task(self.profile, self._digest), self.base)

    def _run(self, run: Run, document: TaskDocument, folder: Path) -> Result:
        begun, nothing = monotonic(), Progress(0, np.zeros(0, np.float32))
        if run.row.kind == "check":
            found = CHECKS[run.row.name](self.people.source("").corpus, self.data)
            return {**self._told(run, document, nothing), "figures": {}, "found": found, "seconds": monotonic() - begun}
        learner = self._learner_for(document)
        if run.row.kind == "base":
            progress = nothing
            figures = {name: self._measured(learner, None, name) for name in run.row.measured}
        else:
            cast = self.people.cast(run, self.profile, document, learner)
            federation = self._federation(run, document, cast, folder)
            trainer = trainer_of(run.row.attack, learner, federation.clients)
            progress = federation.run(trainer, lambda now: self._noted(learner, federation, run.row, now))
            sets = [name for name in run.row.measured if name != OWN]
            figures = {name: self._measured(learner, progress, name) for name in sets}
            if OWN in run.row.measured:
                figures[OWN] = own_figures(federation, learner, progress, cast.own_rows)
        return {**self._told(run, document, progress), "figures": figures, "seconds": monotonic() - begun}

    def _measured(self, learner: Learner, progress: Progress | None, name: str) -> Result:
        rows = self.rows(name)
        found = learner.measure(progress.adapter, rows, progress.public) if progress else learner.measure(None, rows)
        return rows_told(found, rows)

    def _federation(self, run: Run, document: TaskDocument, cast: Cast, folder: Path) -> Federation:
        clients = cast.clients
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
        told = {name: self._measured(learner, progress, name) for name in ("test", "validation")}
        return {name: by_category(one) for name, one in told.items()}

    def _told(self, run: Run, document: TaskDocument, progress: Progress) -> Result:
        row, rounds = run.row, progress.version
        known = first_adapter(document.layout, document.task.adapter.seed)
        first = known if progress.adapter.size else progress.adapter  # a check has no model
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
            "change_norm": float(np.linalg.norm(progress.adapter - first)),
        }

    @cached_property
    def _digest(self) -> str:
        return digest_folder(self.base, self.out / "cache")

    def _settings(self, run: Run, document: TaskDocument) -> str:
        """A digest of everything that the result depends on, apart from the code and the device."""
        row = run.row
        parts = [
            document.digest,
            self.people.source(row.data).corpus.digest,
            row.partition or self.profile.partition,
            row.kind,
        ]
        parts += [str(row.clients), str(run.client), str(run.seed), str(row.choose), str(row.attack), row.carrier]
        later = {"data": row.data, "own rows": row.own_rows, "ranks": row.ranks}  # not there when others were made
        parts += [f"{name} {value}" for name, value in later.items() if value]
        return hash_parts("paper run", *parts).hex()


def own_figures(
    federation: Federation, learner: Learner, progress: Progress, own_rows: Mapping[str, tuple[Record, ...]]
) -> Result:
    """Return the figures of each client's model on the rows that it kept apart: of its own model, where it has one."""
    start = RoundStart(federation.document, progress.version, progress.adapter, public=progress.public)
    found: list[Result] = []
    for client in federation.clients:
        rows = own_rows[client.name]
        if personal_shapes(federation.document):
            figures = learner.measure_own(federation.own_folder(progress.version, client), start, rows)
        else:
            figures = learner.measure(progress.adapter, rows, progress.public)
        told = rows_told(figures, rows)
        found.append({**told, "categories": [client.name] * len(told["rows"])})
    joined = {name: [value for one in found for value in one[name]] for name in found[0] if name != "left_out"}
    return {**joined, "left_out": sum(int(one["left_out"]) for one in found)}


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
