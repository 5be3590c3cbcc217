"""What was measured of one model, row by row, as a line of a file that later runs can be put beside. No torch here."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from math import exp
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedit_client.data import Record
from fedit_client.evaluation.figures import Measured
from fedit_client.evaluation.statistics import Doubles, category_means, headline, jain
from fedit_client.home.durable import append_durably, translating
from fedit_protocol.errors import EvaluationError

SCHEMA: Final = "fedit.evaluation/1"
_PACKAGES: Final = ("fedit", "torch", "transformers", "peft", "bitsandbytes", "lm-eval", "numpy")
_PLACES: Final = 6

Role = Literal["", "base", "local", "fed", "central"]


class ModelResult(BaseModel):
    """One model on every row; all tuples are (rows,).

    Losses are summed nats of a row, `right` its tokens that the model would have taken itself, `rouge` its ROUGE-L F1
    where an answer was written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    schema_: Literal["fedit.evaluation/1"] = Field(SCHEMA, alias="schema")
    name: str
    role: Role = ""
    seed: int | None = None
    rows: tuple[str, ...] = Field(min_length=1, description="16 hex digits of each row's text: results pair by these")
    categories: tuple[str, ...]
    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    right: tuple[int, ...]
    rouge: tuple[float | None, ...] = ()
    left_out: int = Field(0, ge=0, description="rows whose whole answer the cutoff took")
    facts: dict[str, float | str] = Field(
        default_factory=dict,
        description="base, adapter, template, precision; seconds and peak_bytes of the measuring where known",
    )
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lengths_agree(self) -> "ModelResult":
        lengths = {len(self.rows), len(self.categories), len(self.tokens), len(self.losses), len(self.right)}
        if len(lengths) > 1 or len(self.rouge) not in {0, len(self.rows)}:
            raise ValueError("rows, categories, tokens, losses and right differ in length")
        if min(self.tokens) < 1:
            raise ValueError("a row without answer tokens")
        return self

    @cached_property
    def by_category(self) -> dict[str, float]:
        """Nats per answer token in each category, each token with the same say."""
        return category_means(self.categories, _doubles(self.tokens), _doubles(self.losses))

    @property
    def loss(self) -> float:
        """The headline: the mean over categories."""
        return headline(self.by_category)

    @property
    def perplexity(self) -> float:
        """exp of the headline loss."""
        return exp(self.loss)

    @property
    def accuracy(self) -> float:
        """The share of answer tokens that the model would have taken itself, mean over categories."""
        return headline(category_means(self.categories, _doubles(self.tokens), _doubles(self.right)))

    @property
    def worst(self) -> tuple[str, float]:
        """The category with the highest loss."""
        return max(self.by_category.items(), key=lambda item: item[1])

    @property
    def std(self) -> float:
        """The standard deviation of the loss over categories."""
        return float(np.std(list(self.by_category.values())))

    @property
    def jain(self) -> float:
        """Jain's index of the losses of the categories; 1 where all are equal."""
        return jain(list(self.by_category.values()))

    @property
    def rouge_l(self) -> float | None:
        """Mean ROUGE-L F1 over the rows that were answered, each category with the same say; None without any."""
        answered = [place for place, score in enumerate(self.rouge) if score is not None]
        if not answered:
            return None
        scores = _doubles([self.rouge[place] or 0.0 for place in answered])
        return headline(category_means([self.categories[place] for place in answered], np.ones(len(scores)), scores))

    def line(self) -> bytes:
        """The result as one line of JSON."""
        return self.model_dump_json(by_alias=True, exclude_defaults=False).encode() + b"\n"


def results_of(
    measured: Measured,
    records: Sequence[Record],
    *,
    roles: Mapping[str, Role] | None = None,
    seed: int | None = None,
    facts: Mapping[str, Mapping[str, float | str]] | None = None,
    rouge: Mapping[str, Sequence[float | None]] | None = None,
) -> list[ModelResult]:
    """Return one result for each model that was measured on all of these records; `rouge` is by record.

    A name of `measured` that is no key of `roles`, `facts` or `rouge` has none.
    """
    order = np.argsort(measured.places)  # back into the order of the records
    places = [measured.places[place] for place in order]
    found = []
    for name, figures in measured.figures.items():
        scores = (rouge or {}).get(name)
        found.append(
            ModelResult(
                name=name,
                role=(roles or {}).get(name, ""),
                seed=seed,
                rows=tuple(row_name(records[place]) for place in places),
                categories=tuple(measured.categories[place] for place in order),
                tokens=tuple(int(measured.tokens[place]) for place in order),
                losses=tuple(round(float(figures.losses[place]), _PLACES) for place in order),
                right=tuple(int(figures.right[place]) for place in order),
                rouge=tuple(scores[place] for place in places) if scores else (),
                left_out=measured.left_out,
                facts={**(facts or {}).get(name, {}), **_cost(measured, name)},
                versions=versions(),
            )
        )
    return found


def row_name(record: Record) -> str:
    """Return 16 hex digits that name a row by its text."""
    text = json.dumps([[message.role.value, message.content] for message in record.messages], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_results(path: Path, results: Iterable[ModelResult]) -> None:
    """Append results to a file, one line each; raises StorageError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_durably(path, b"".join(result.line() for result in results))


def read_results(paths: Iterable[Path]) -> list[ModelResult]:
    """Return the results of all files; of the same name and seed the last one. Raises EvaluationError V001."""
    found = last_of_each(result_of(line, where) for path in paths for where, line in lines_of(path))
    if not found:
        raise no_result("there are no results in the files", None)
    return found


def lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each line of a file that is not empty, after where it stands, for people; raises StorageError."""
    with translating(path):
        content = path.read_bytes()
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def result_of(line: bytes, where: str) -> ModelResult:
    """Return the result that a line is; raises EvaluationError V001."""
    try:
        return ModelResult.model_validate_json(line)
    except ValidationError as error:
        raise no_result(f"this is no result of an evaluation: {first_fault(error)}", where) from error


def last_of_each(results: Iterable[ModelResult]) -> list[ModelResult]:
    """Return the results without those that a later one of the same name and seed has replaced."""
    return list({(result.name, result.seed): result for result in results}.values())


def no_result(reason: str, where: str | None) -> EvaluationError:
    """The error of a file that holds no results."""
    return EvaluationError(reason, code="V001", where=where,
                           fix="name files of eval models --out, eval tasks --out or judge run --out")  # fmt: skip


def first_fault(error: ValidationError) -> str:
    """Return what is wrong with a line, and in which of its fields."""
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"]


def aligned(ours: ModelResult, theirs: ModelResult) -> ModelResult:
    """Return theirs in the order of our rows; raises EvaluationError V002 unless both know the same rows and tokens."""
    if ours.rows == theirs.rows and ours.tokens == theirs.tokens:
        return theirs
    where: dict[tuple[str, int], int] = {key: place for place, key in enumerate(_keys(theirs.rows))}
    try:
        order = [where.pop(key) for key in _keys(ours.rows)]
    except KeyError:
        order = []
    if not order or where or [theirs.tokens[place] for place in order] != list(ours.tokens):
        what = "cut into other tokens" if order and not where else "other rows"
        raise EvaluationError(f"{ours.name} and {theirs.name} cannot be compared: they were measured on {what}",
                              code="V002", fix="measure both with the same --data, base and template")  # fmt: skip

    def sorted_as_ours(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[place] for place in order) if values else ()

    fields = ("rows", "categories", "tokens", "losses", "right", "rouge")
    return theirs.model_copy(update={name: sorted_as_ours(getattr(theirs, name)) for name in fields})


def versions() -> dict[str, str]:
    """Return the versions of what a measurement depends on, where it is installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _keys(rows: Sequence[str]) -> list[tuple[str, int]]:
    """Each row's name, and the how many-eth of that name it is: a file may hold a row twice."""
    seen: dict[str, int] = {}
    keys = []
    for row in rows:
        seen[row] = seen.get(row, 0) + 1
        keys.append((row, seen[row]))
    return keys


def _cost(measured: Measured, name: str) -> dict[str, float]:
    """How long it took to measure a model, and in how much memory, where that was measured."""
    found = {"seconds": round(measured.figures[name].seconds, 3), "peak_bytes": float(measured.peak_bytes)}
    return {fact: value for fact, value in found.items() if value}


def _doubles(values: Sequence[float | int]) -> Doubles:
    return np.asarray(values, dtype=np.float64)
