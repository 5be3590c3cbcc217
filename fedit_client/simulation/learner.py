"""One loaded base that trains and measures for every virtual client, one after another. torch comes with `Learner`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from fedit_client.base.digest import digest_folder
from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.request import LocalResult, TrainingRequest, nobody_listens
from fedit_protocol.adapter import Vector
from fedit_protocol.base_shapes import read_shapes
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.methods import RoundStart, State
from fedit_protocol.methods.nested import limited
from fedit_protocol.task import Task, TaskDocument, TrainingSpec


@dataclass(frozen=True)
class Figures:
    """What a model makes of every row, arrays of shape (rows,): nats summed over answer tokens, right tokens, tokens.

    `places` are the rows' places among the records that were given; rows that lose their whole answer to the cutoff
    are not there.
    """

    places: NDArray[np.int64]
    losses: NDArray[np.float64] = field(repr=False)
    right: NDArray[np.int64] = field(repr=False)
    tokens: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class LocalWork:
    """What one virtual client works on in one round, by which seed; `own` is a folder for what never leaves it.

    `rank` is how many slices of the factors it trains, in a task of nested ranks; 0 means all of them.
    """

    records: Sequence[Record] = field(repr=False)
    seed: bytes = field(repr=False)
    own: Path
    rank: int = 0


class Trains(Protocol):
    """What a federation needs of a learner: a program may bring its own."""

    def train(self, work: LocalWork, start: RoundStart) -> LocalResult:
        """Train one client from where a round starts."""
        ...


def document_of(task: Task, base: Path, cache: Path | None = None) -> TaskDocument:
    """Return the document of a task for the base in this folder, whose digest is filled in.

    Raises ModelError, and ConfigError C023 or C041 if a layer is too narrow for the task's method.
    """
    spec = task.base.model_copy(update={"digest": digest_folder(base, cache)})
    shapes: dict[str, tuple[int, ...]] = {}
    files = sorted(base.glob("*.safetensors"))
    for path in files:
        with safe_open(path, "np") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    config = json.loads((base / "config.json").read_text("utf-8"))
    size = sum(path.stat().st_size for path in files)
    return TaskDocument.of(task.model_copy(update={"base": spec}), read_shapes(config, shapes), size)


class Learner:
    """A base with one task's adapter on it; the adapter's numbers come anew with every piece of work."""

    def __init__(
        self, document: TaskDocument, base: Path, plan: DevicePlan, scratch: Path, measured_tokens: int = 512
    ) -> None:
        """Load the base; `scratch` is a folder for small files. Raises ModelError, TaskRefusedError.

        Rows to measure are cut at `measured_tokens`, or at the task's cutoff where that is longer: rows whose prompt
        alone fills the cutoff of a quick training run would not count at all, and they are those of some categories.
        """
        from fedit_client.training.quiet import prepare

        prepare(plan.threads)
        from fedit_client.training.local import load

        self.document, self._base, self._plan = document, base, plan
        self._measured_tokens = max(measured_tokens, document.task.prompt.cutoff_tokens)
        self._loaded = load(document, base, plan, unpacked=True)
        scratch.mkdir(parents=True, exist_ok=True)
        self._file = scratch / "global.safetensors"
        self._kept: dict[int, tuple[Sequence[Record], list[Any], NDArray[np.int64]]] = {}

    def usable(self, records: Sequence[Record]) -> list[int]:
        """Return the places of the rows that keep an answer token within the task's cutoff."""
        return [int(place) for place in self._examples(records, self.document.task.prompt.cutoff_tokens)[1]]

    def train(self, work: LocalWork, start: RoundStart) -> LocalResult:
        """Train as the task says on rows that the seed draws; raises DataError, DeviceError.

        Slices that are 0 in both factors have no gradient, so a client of lower rank trains on the model of all.
        """
        from fedit_client.training.local import train_here

        adapter = limited(start.document.layout, start.adapter, work.rank) if work.rank else start.adapter
        self._write(start.document, adapter)
        request = TrainingRequest(
            document=start.document,
            base=self._base,
            global_adapter=self._file,
            records=drawn(work.records, start.document.task.training, work.seed),
            seed=work.seed,
            plan=self._plan,
            version=start.version,
            public=self._public(start.public),
            own=work.own,
        )
        return train_here(self._loaded, request, nobody_listens)

    def measure(self, adapter: Vector | None, records: Sequence[Record], public: State | None = None) -> Figures:
        """Return what an adapter, or the base alone, makes of these rows; they are tokenised once.

        `public` is what a method keeps beside the adapter: a side delta is part of the model.
        """
        examples, places = self._known(records)
        return _told(self._figures(adapter, public or {}, examples), examples, places)

    def measure_own(self, own: Path, start: RoundStart, records: Sequence[Record]) -> Figures:
        """Return what a client's personal model makes of these rows: the newest adapter with what it keeps in `own`."""
        from fedit_client.evaluation.rows import row_figures
        from fedit_client.training.model import load_tensors
        from fedit_client.training.personal import Personal

        self._write(start.document, start.adapter)
        public = self._public(start.public)
        request = TrainingRequest(
            start.document, self._base, self._file, (), b"", self._plan, version=start.version, public=public, own=own
        )
        Personal.of(request, load_tensors(self._file, start.document.built)).wear(self._loaded.model)
        examples, places = self._known(records)
        return _told(row_figures(self._loaded, examples, lambda _done, _total: None), examples, places)

    def _known(self, records: Sequence[Record]) -> tuple[list[Any], NDArray[np.int64]]:
        """Rows to measure as examples, with their places; tokenised once."""
        key = id(records)
        if key not in self._kept or self._kept[key][0] is not records:
            self._kept[key] = (records, *self._examples(records, self._measured_tokens))
        return self._kept[key][1:]

    def _figures(self, adapter: Vector | None, public: State, examples: list[Any]) -> tuple[list[float], list[int]]:
        """Each row's summed loss and right tokens under an adapter with its side delta, or under the base alone."""
        from fedit_client.evaluation.rows import row_figures
        from fedit_client.training.model import write_adapter
        from fedit_client.training.side import beside

        model: Any = self._loaded.model
        if adapter is None:
            with model.disable_adapter():
                return row_figures(self._loaded, examples, lambda _done, _total: None)
        write_adapter(model, self.document.built.unflatten(built_adapter(self.document, adapter)))
        with beside(model, self.document.built, self._public(public)):
            return row_figures(self._loaded, examples, lambda _done, _total: None)

    def _write(self, document: TaskDocument, adapter: Vector) -> None:
        save_file(document.built.unflatten(built_adapter(document, adapter)), self._file)

    def _public(self, public: State) -> Path | None:
        if not public:
            return None
        file = self._file.with_name("public.safetensors")
        save_file({name: np.ascontiguousarray(array) for name, array in public.items()}, file)
        return file

    def _examples(self, records: Sequence[Record], cutoff: int) -> tuple[list[Any], NDArray[np.int64]]:
        """Tokenise what keeps an answer, shortest first: rows of like length waste little on padding."""
        from fedit_client.training.tokenize import Example, uncut

        kept = []
        for place, whole in enumerate(uncut(records, self._loaded.tokenizer, self.document.task.prompt)):
            if isinstance(whole, Example) and whole.loss_mask[1:cutoff].any():
                kept.append((place, Example(whole.ids[:cutoff], whole.loss_mask[:cutoff])))
        kept.sort(key=lambda pair: len(pair[1].ids))
        return [example for _, example in kept], np.array([place for place, _ in kept], np.int64)


def _told(found: tuple[list[float], list[int]], examples: list[Any], places: NDArray[np.int64]) -> Figures:
    from fedit_client.evaluation.rows import trained_tokens

    losses, right = found
    return Figures(places, np.array(losses), np.array(right), np.array(trained_tokens(examples)))


def drawn(records: Sequence[Record], spec: TrainingSpec, seed: bytes) -> Sequence[Record]:
    """Return the rows that a round's steps need, so that no others are tokenised: passes shuffled anew by the seed.

    Where a round needs as many rows as there are, or more, these are all rows, in their own order.
    """
    needed = spec.local_steps * spec.batch_size
    if not needed or needed >= len(records):
        return records
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(b"rows" + seed).digest(), "big"))
    return [records[place] for place in random.permutation(len(records))[:needed]]
