"""What is run: a profile says at which scale, a row's task file says what differs; both give a list of runs."""

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import ValidationError

from fedit_protocol.errors import ConfigError
from fedit_protocol.task import Task

HERE = Path(__file__).resolve().parent
Kind = Literal["base", "alone", "central", "federated", "check"]
Values = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """One scale: the base, the data, and the task that every row starts from."""

    name: str
    model: str
    precision: str
    partition: str
    seeds: int
    """Of every row; 0 leaves it to the rows."""
    most_measured: int
    """Rows of each set that models are measured on, spread over it; 0 means all."""
    task: Values = field(repr=False)
    limits: Values = field(repr=False)
    """What the profile says otherwise about a row, by the row's name: `rounds`, `variants`, `clients`."""
    more_partitions: tuple[str, ...] = ()
    """Those on which everything is run once more."""

    def on(self, partition: str) -> "Profile":
        """Return this profile on one partition alone, named after it where it is not its first."""
        name = self.name if partition == self.partition else f"{self.name}_{partition}"
        return replace(self, name=name, partition=partition, more_partitions=())

    def all(self) -> "list[Profile]":
        """Return this profile on each of its partitions."""
        return [self.on(partition) for partition in (self.partition, *self.more_partitions)]


@dataclass(frozen=True)
class Row:
    """One line of the results table, or several where it has variants: its task file."""

    name: str
    title: str
    kind: Kind
    experiment: str
    order: int
    seeds: int
    clients: str | tuple[int, ...]
    """`all`, `each` (a run for each client, or as many as `runs`), or places."""
    runs: int
    partition: str
    choose: Values
    carrier: str
    attack: Values
    data: str
    """Another data set than Dolly, which its clients train on: `languages`."""
    own_rows: int
    """Rows of each client that it does not train on: what its own model is measured on, as the set `own`."""
    ranks: tuple[int, ...]
    """Of the clients in a task of nested ranks, one after another and again."""
    curve: bool
    """Whether the test rows are measured after each round and not only at the end."""
    measured: tuple[str, ...]
    """The sets of rows that the finished model is measured on."""
    task: Values = field(repr=False)
    variants: Mapping[str, Values] = field(repr=False)

    @property
    def told_on(self) -> str:
        """The set of rows that the table of all rows is about: the first one; "" for a check, which has no model."""
        return self.measured[0] if self.measured else ""


@dataclass(frozen=True)
class Run:
    """One training run: a row, perhaps a variant of it, perhaps one client of it, and a seed."""

    row: Row
    seed: int
    variant: str = ""
    client: int | None = None

    @property
    def name(self) -> str:
        """What its folder is called."""
        parts = [self.row.name, self.variant, "" if self.client is None else f"client{self.client}", f"seed{self.seed}"]
        return "-".join(part.replace(", ", "-").replace(" ", "") for part in parts if part)

    @property
    def title(self) -> str:
        """What a table calls it."""
        variant = f", {self.variant}" if self.variant else ""
        return self.row.title + variant + ("" if self.client is None else f", client {self.client}")

    def task(self, profile: Profile, digest: str) -> Task:
        """Return the whole task of this run; `digest` is the base's. Raises ConfigError F021 if they do not fit."""
        values = merged(profile.task, self.row.task)
        values = merged(values, self.row.variants.get(self.variant, {}))
        if self.row.name in profile.limits:
            values = merged(values, profile.limits[self.row.name].get("task", {}))
        base = {"model": profile.model, "quantization": profile.precision, "digest": digest}
        values = merged(values, {"id": self.row.name.replace("_", "-"), "title": self.title, "base": base})
        values = merged(values, {"adapter": {"seed": self.seed}})
        try:
            return Task.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"the task of row {self.row.name} does not fit: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                code="F021",
                where=f"rows/{self.row.name}.toml",
                fix="correct the row's task file",
            ) from error


def read_profile(name: str) -> Profile:
    """Return a profile of the folder `profiles`; raises ConfigError F022 for a name that is not there."""
    file = HERE / "profiles" / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.toml")))
        raise ConfigError(f"there is no profile {name}: there are {known}", code="F022", fix="--profile cpu")
    values = tomllib.loads(file.read_text("utf-8"))
    values.setdefault("limits", cast("Values", {}))
    values["more_partitions"] = tuple(cast("list[str]", values.get("more_partitions", [])))
    return Profile(name=name, **values)


def read_rows() -> list[Row]:
    """Return every row in the order in which they are run: the most valuable first."""
    rows = [_row(path) for path in sorted((HERE / "rows").glob("*.toml"))]
    return sorted(rows, key=lambda row: (row.order, row.name))


def _row(path: Path) -> Row:
    values = {**_DEFAULTS, **tomllib.loads(path.read_text("utf-8"))}
    clients = values["clients"]
    values["clients"] = clients if isinstance(clients, str) else tuple(cast("list[int]", clients))
    values["measured"], values["ranks"] = tuple(values["measured"]), tuple(values["ranks"])
    return Row(name=path.stem, **values)


NO_DIGEST: Final = "sha256:" + "0" * 64
"""Stands for the base's digest where a task is only looked at."""

_SEED_OF: Final = re.compile(r"-seed([0-9]{1,2})$")
"""The seed in the name of a run."""

_LATER_SEEDS: Final = 15
"""By how much a further seed of a row comes later than its first: the main rows' before the first of the last ones."""

_DEFAULTS: Values = {
    "kind": "federated",
    "seeds": 1,
    "clients": "all",
    "runs": 0,
    "partition": "",
    "choose": {},
    "carrier": "ring",
    "attack": {},
    "data": "",
    "own_rows": 0,
    "ranks": [],
    "curve": False,
    "measured": ["test", "validation"],
    "task": {},
    "variants": {},
}


def runs_of(rows: Sequence[Row], profile: Profile, chosen: Sequence[str], seeds: int) -> list[Run]:
    """Return all runs, the most valuable first; `chosen` are names of rows, experiments or runs, all without any.

    A run may be named with a later seed than its row has. Raises ConfigError F023 for a name that is none of these.
    """
    later = max((int(match[1]) for name in chosen if (match := _SEED_OF.search(name))), default=0)
    every = [run for row in rows for seed in range(1, 1 + later) for run in _runs(row, profile, seed)]
    known = {row.name for row in rows} | {row.experiment for row in rows} | {run.name for run in every}
    if unknown := sorted(set(chosen) - known):
        raise ConfigError(f"there is no row, experiment or run {unknown[0]}", code="F023", fix="--list shows them")
    found = {run.name: run for run in every if run.name in chosen}
    for row in rows:
        if not chosen or {row.name, row.experiment} & set(chosen):
            for seed in range(1, 1 + (seeds or profile.seeds or row.seeds)):
                found |= {run.name: run for run in _runs(row, profile, seed)}
    return sorted(found.values(), key=lambda run: run.row.order + _LATER_SEEDS * (run.seed - 1))


def _runs(row: Row, profile: Profile, seed: int) -> Iterator[Run]:
    limit = cast("Values", profile.limits.get(row.name, {}))
    variants = cast("Sequence[str]", limit.get("variants", tuple(row.variants) or ("",)))
    if unknown := sorted(set(variants) - {"", *row.variants}):
        raise ConfigError(
            f"the profile {profile.name} wants a variant {unknown[0]} of row {row.name}, which has none of that name",
            code="F021",
            where=f"profiles/{profile.name}.toml",
            fix="name a variant that the row's task file has",
        )
    for variant in variants:
        if row.clients == "each":
            yield from (Run(row, seed, variant, place) for place in range(cast("int", limit.get("runs", row.runs))))
        else:
            yield Run(row, seed, variant)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Return the tables of both, value by value, those of `above` winning."""
    result: Values = copy.deepcopy(dict(below))
    for name, value in above.items():
        known = result.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            result[name] = merged(cast("Values", known), cast("Values", value))
        else:
            result[name] = copy.deepcopy(cast("Any", value))
    return result
