"""Who takes part in a run and with which rows: the data set of its row, dealt, without what nobody trains on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedit_client.data import Record
from fedit_client.home.durable import write_atomic
from fedit_client.simulation import Learner, VirtualClient
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import TaskDocument

from .data import Deal, Dolly, Places, apart
from .languages import Languages
from .lies import poisoned
from .plan import Profile, Row, Run

Source = Dolly | Languages


@dataclass(frozen=True)
class Cast:
    """The clients of a run, and what each keeps apart to measure its own model on, by its name."""

    clients: list[VirtualClient]
    own_rows: dict[str, tuple[Record, ...]] = field(repr=False)


@dataclass
class People:
    """The data sets and partitions of one process's runs, each made when a row first asks for it."""

    place: Path
    cache: Path
    _sources: dict[str, Source] = field(default_factory=dict[str, Source], repr=False)
    _deals: dict[tuple[str, str], Deal] = field(default_factory=dict[tuple[str, str], Deal], repr=False)

    def source(self, name: str) -> Source:
        """Return a data set by the name that rows give it; raises DataError F024."""
        if name not in self._sources:
            self._sources[name] = Languages(self.place) if name == "languages" else Dolly(self.place)
        return self._sources[name]

    def cast(self, run: Run, profile: Profile, document: TaskDocument, learner: Learner) -> Cast:
        """Return who takes part in a run. Raises ConfigError F028 where the cutoff leaves a client without a row."""
        row, source = run.row, self.source(run.row.data)
        rows, apart_rows = self._rows(run, profile, document, learner), dict[str, tuple[Record, ...]]()
        if row.own_rows:
            split = {name: apart(mine, row.own_rows, name) for name, mine in rows.items()}
            rows = {name: kept for name, (kept, _) in split.items()}
            apart_rows = {name: source.records(taken.tolist()) for name, (_, taken) in split.items()}
        if row.kind == "central":
            rows = {"everybody": np.concatenate(list(rows.values()))}
        ranks = row.ranks or (0,)
        clients = [
            VirtualClient(name, source.records(mine.tolist()), ranks[place % len(ranks)])
            for place, (name, mine) in enumerate(rows.items())
        ]
        return Cast(poisoned(row.attack, clients), apart_rows)

    def _rows(self, run: Run, profile: Profile, document: TaskDocument, learner: Learner) -> dict[str, Places]:
        """The rows of every client of a run that keep an answer."""
        deal, usable = self._deal(run.row, profile).clients, self._usable(run.row.data, document, learner)
        found = {place: np.intersect1d(deal[place], usable) for place in _places(run, len(deal))}
        if empty := next((f"client {place}" for place, rows in found.items() if not len(rows)), ""):
            raise ConfigError(
                f"no row of {empty} keeps an answer within {document.task.prompt.cutoff_tokens} tokens",
                code="F028",
                where=run.name,
                fix="raise task.prompt.cutoff_tokens in the profile",
            )
        return {f"client {place}": rows for place, rows in found.items()}

    def _deal(self, row: Row, profile: Profile) -> Deal:
        key = (row.data, row.partition or profile.partition)
        if key not in self._deals:
            self._deals[key] = self.source(row.data).deal(key[1])
        return self._deals[key]

    def _usable(self, name: str, document: TaskDocument, learner: Learner) -> Places:
        """Rows of which the cutoff leaves an answer: found once for a prompt and a base, kept in a file."""
        source = self.source(name)
        of = f"{document.task.prompt.model_dump_json()}{document.task.base.digest}{source.corpus.digest}"
        file = self.cache / f"usable-{hashlib.sha256(of.encode()).hexdigest()[:16]}.json"
        if not file.is_file():
            found = learner.usable(source.records(range(len(source.corpus))))
            write_atomic(file, json.dumps(sorted(found)).encode(), 0o644)
        return np.array(json.loads(file.read_text("utf-8")), np.int64)


def _places(run: Run, clients: int) -> Sequence[int]:
    if run.client is not None:
        return [run.client]
    return range(clients) if isinstance(run.row.clients, str) else run.row.clients
