"""`eval` for oneself: what the adapters bring on one's own held-out rows. Nothing of it leaves this machine."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from fedit_client.adapters.editions import KeptVersion, kept_versions, remember_own
from fedit_client.adapters.personal import personal_here, personal_line
from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.joining import tell_rows
from fedit_client.data import OnError, Record, Source
from fedit_client.data.own import OwnData
from fedit_client.data.remembered import read_here
from fedit_client.evaluation import Measured, MeasureRequest, WorkerMeasurer
from fedit_client.hardware.device import Machine
from fedit_client.membership.identity import held_out_seed, load_or_create_identity
from fedit_client.membership.joined import Membership, joined_or_left
from fedit_client.rounds.preparation import check_training_stack, choose_device, find_base, unplanned
from fedit_client.training import OnProgress
from fedit_protocol.errors import DataError
from fedit_protocol.methods.personal_parts import is_adapter
from fedit_protocol.peft_folder import OwnLoss
from fedit_protocol.words import counted

BASE: Final = "base"
PERSONAL: Final = "personal"
_MOST_CATEGORIES: Final = 12


class Measurer(Protocol):
    """The seam to the model: figures of named adapters, row by row."""

    async def measure(self, request: MeasureRequest, on_progress: OnProgress) -> Measured:
        """Return the figures of each adapter of the request; raises DataError, DeviceError, ModelError."""
        ...


@dataclass(frozen=True)
class OwnWishes:
    """What the owner said on the command line; without `data` the rows are those that are held out of training."""

    data: tuple[Path, ...] = ()
    on_error: OnError = "stop"


@dataclass(frozen=True)
class OwnEvaluation:
    """Base, the version before, the newest one and the personal one if there is such, on the same rows."""

    names: tuple[str, ...]
    """In the order of their age, the base first."""
    measured: Measured = field(repr=False)
    of_held_out: bool

    def as_data(self) -> dict[str, Any]:
        """The figures, for programs."""
        found, newest = self.measured, self.names[-1]
        return {
            "rows": found.rows,
            "tokens": int(found.tokens.sum()),
            "left_out": found.left_out,
            "held_out": self.of_held_out,
            "models": {
                name: {
                    "loss": found.loss(name),
                    "token_accuracy": found.accuracy(name),
                    "by_category": {category: found.loss(name, category) for category in self._categories()},
                }
                for name in self.names
            },
            "newest_against": {
                name: {**asdict(difference), "verdict": difference.verdict}
                for name in self.names[:-1]
                if (difference := found.difference(newest, name))
            },
        }

    def lines(self) -> list[str]:
        """The figures, for people."""
        found, newest = self.measured, self.names[-1]
        of = "of yours held out of training" if self.of_held_out else "that you named"
        kind = f"row {of}", f"rows {of}"
        left = f"; {found.left_out} more were left out" if found.left_out else ""
        width = max(len(name) for name in self.names)
        return [
            f"on {counted(found.rows, kind[0], kind[1])}, {counted(int(found.tokens.sum()), 'answer token')}{left}",
            *(
                f"  {name:<{width}}  loss {found.loss(name):.3f}  right tokens {100 * found.accuracy(name):.1f} %"
                for name in self.names
            ),
            *(self._against(newest, name) for name in self.names[:-1]),
            *self._category_lines(newest),
        ]

    def _against(self, newest: str, name: str) -> str:
        found = self.measured.difference(newest, name)
        interval = f"95 % interval {found.low:+.3f} to {found.high:+.3f}"
        return f"{newest} against {name}: loss {found.change:+.3f} ({interval}): {found.verdict}"

    def _category_lines(self, newest: str) -> list[str]:
        categories = self._categories()
        if len(categories) < 2 or len(self.names) < 2:
            return []
        loss, first = self.measured.loss, self.names[0]
        shown = [
            f"  {category or '(none)'}: {loss(first, category):.3f} → {loss(newest, category):.3f}"
            for category in categories[:_MOST_CATEGORIES]
        ]
        more = len(categories) - _MOST_CATEGORIES
        return [f"by category, {first} → {newest}:", *shown, *([f"  and {more} more: --json"] if more > 0 else [])]

    def _categories(self) -> list[str]:
        return sorted(set(self.measured.categories))


async def evaluate_own(
    config: ClientConfig, console: Console, wishes: OwnWishes, measurer: Measurer | None = None
) -> OwnEvaluation:
    """Measure the base, the version before and the newest version on this device; keep the figures beside them.

    A `measurer` of its own decides how, and no base model is looked for. Raises MembershipError J001, DataError,
    DeviceError, ModelError.
    """
    membership = joined_or_left(config.paths)
    document = membership.task_document
    kept = kept_versions(config.paths.adapters, document.task.id)[-2:]
    records, fraction = await asyncio.to_thread(rows_to_measure, config, membership, wishes, console)
    seed = held_out_seed(load_or_create_identity(config.paths.identity_file))
    if measurer is None:
        check_training_stack(config.device)
        plan = choose_device(document, Machine.here(), config.device, membership)
        model = config.model or membership.model
        base = await find_base(document, model, config.paths.cache, config.limits, console.say)
    else:
        plan, base = unplanned(document), Path(config.model or ".")
    adapters = {BASE: None, **{f"version {one.version}": one.folder for one in kept}}
    if is_adapter(document) and personal_line(config.paths.adapters, document):
        adapters[PERSONAL] = personal_here(config.paths.adapters, document).folder
    request = MeasureRequest(document, base, adapters, records, plan, seed, fraction)
    console.say(f"measuring {', '.join(adapters)} …", style="dim")
    measured = await (measurer or WorkerMeasurer()).measure(request, lambda _: None)
    if wishes.data == ():
        await asyncio.to_thread(_remember, kept, measured, membership)
    return OwnEvaluation(tuple(adapters), measured, fraction > 0)


def rows_to_measure(
    config: ClientConfig, membership: Membership, wishes: OwnWishes, console: Console
) -> tuple[Sequence[Record], float]:
    """Return the rows, and which share of them is held out: the very rows that training leaves alone, or all named.

    Raises DataError, D020 if there are none.
    """
    if wishes.data:
        found: list[Record] = []
        for path in wishes.data:
            source = Source(str(path), on_error=wishes.on_error)
            rows = read_here(config.paths, source)
            tell_rows(console, source.place, rows)
            found.extend(rows.records)
        return found, 0.0
    fraction = membership.task_document.task.training.held_out_fraction
    if not fraction:
        raise DataError("the task holds no rows out of training, so there are none to measure on", code="D020",
                        fix="fedit-client eval --data rows.jsonl", again="--data rows.jsonl")  # fmt: skip
    return OwnData(config.paths).records(), fraction


def _remember(kept: Sequence[KeptVersion], measured: Measured, membership: Membership) -> None:
    for one in kept:
        loss, known = measured.loss(f"version {one.version}"), one.edition.own
        own = OwnLoss(loss, measured.rows, measured.loss(BASE), known.trained if known else None)
        remember_own(one.folder, membership.task_document.task, own)
