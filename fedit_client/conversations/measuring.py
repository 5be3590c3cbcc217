"""`eval models`: any adapters on one base, or whole models, on any rows. Nothing of it leaves this machine."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

from fedit_client.adapters.editions import version_here
from fedit_client.base.look import imagined
from fedit_client.base.model import resolve_base
from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.own_evaluation import BASE, Measurer
from fedit_client.data import Message, Record, Source
from fedit_client.data.remembered import read_here
from fedit_client.evaluation import MeasureRequest, WorkerChat, WorkerMeasurer
from fedit_client.evaluation.metrics import ROUGE_CATEGORIES, ROUGE_TOKENS, rouge_l
from fedit_client.evaluation.results import ModelResult, Role, results_of, row_name, write_results
from fedit_client.hardware.device import DevicePlan, Machine
from fedit_client.home.durable import append_durably
from fedit_client.membership.joined import Membership, load_membership
from fedit_client.rounds.preparation import check_training_stack, choose_device
from fedit_client.training import TrainingProgress
from fedit_protocol.errors import ConfigError, DataError, ModelError
from fedit_protocol.task import PromptSpec, Quantization, Template

_ALL_ROWS: Final = 2**31
_CONFIG: Final = "config.json"
_ADAPTER: Final = "adapter_config.json"
_ROLES: Final = ("base", "local", "fed", "central")
_VERSION: Final = re.compile(r"^\d+$")


@dataclass(frozen=True)
class MeasureWishes:
    """What somebody said on the command line; `models` are `PLACE` or `NAME=PLACE`, `roles` are `NAME=ROLE`."""

    models: tuple[str, ...]
    sources: tuple[Source, ...]
    roles: tuple[str, ...] = ()
    template: Template | None = None
    cutoff_tokens: int | None = None
    precision: Quantization | None = None
    seed: int | None = None
    rouge: bool = False
    rouge_categories: tuple[str, ...] = ()
    """Whose answers are scored; those of Dolly's with few right wordings if none is named."""
    answers: Path | None = None
    answer_tokens: int = 256
    out: Path | None = None


@dataclass(frozen=True)
class Named:
    """One model as it was named: a PEFT folder on the base, a whole model's folder, or neither for the base alone."""

    name: str
    adapter: Path | None = None
    whole: Path | None = None

    @property
    def place(self) -> str:
        """Where it lies, for the record."""
        return str(self.adapter or self.whole or BASE)


class Answerer(Protocol):
    """Whom `WorkerChat` answers as."""

    def ask(
        self, messages: Sequence[Message], *, voice: str = "", max_tokens: int, temperature: float, seed: int,
        context: str,
    ) -> AsyncIterator[str]:  # fmt: skip
        """Yield an answer piece by piece."""
        ...


class Speaking(Protocol):
    """The seam to a model that answers, by the base and the adapters on it."""

    def __call__(
        self, base: Path, plan: DevicePlan, adapters: Mapping[str, Path | None], prompt: PromptSpec
    ) -> AbstractAsyncContextManager[Answerer]:
        """Return a block in which the adapters can be asked by name."""
        ...


@dataclass
class Measuring:
    """One command's work: the base, the rows, and what each model makes of them."""

    config: ClientConfig
    console: Console
    wishes: MeasureWishes
    records: Sequence[Record]
    prompt: PromptSpec
    roles: Mapping[str, Role]
    measurer: Measurer = field(default_factory=WorkerMeasurer)
    speaking: Speaking | None = None

    async def measure(self, base: Path, models: Sequence[Named], plan: DevicePlan) -> list[ModelResult]:
        """Measure some models on one base, keep what was found at once, and return it."""
        adapters = {model.name: model.adapter for model in models}
        request = MeasureRequest(None, base, adapters, self.records, plan, most_rows=_ALL_ROWS, prompt=self.prompt)
        measured = await self.measurer.measure(request, self._progress(", ".join(adapters)))
        rouge = await self._rouge(base, adapters, plan) if self.wishes.rouge else None
        facts: dict[str, dict[str, float | str]] = {
            model.name: {"base": str(base), "adapter": model.place, "template": self.prompt.template.value,
                         "cutoff_tokens": self.prompt.cutoff_tokens, "precision": plan.quantization.value}
            for model in models
        }  # fmt: skip
        found = results_of(measured, self.records, roles=self.roles, seed=self.wishes.seed, facts=facts, rouge=rouge)
        if self.wishes.out:
            await asyncio.to_thread(write_results, self.wishes.out, found)
        if self.wishes.answers:
            await self._write_answers(base, adapters, plan, self.wishes.answers)
        return found

    async def _rouge(
        self, base: Path, adapters: Mapping[str, Path | None], plan: DevicePlan
    ) -> dict[str, list[float | None]]:
        asked = _rouge_places(self.records, self.wishes.rouge_categories)
        chosen = [self.records[place] for place in asked]
        references = [record.messages[-1].content for record in chosen]
        scores = {}
        async for name, answers in self._answers(base, adapters, plan, chosen, ROUGE_TOKENS):
            by_place = dict(zip(asked, rouge_l(answers, references), strict=True))
            scores[name] = [by_place.get(place) for place in range(len(self.records))]
        return scores

    async def _write_answers(
        self, base: Path, adapters: Mapping[str, Path | None], plan: DevicePlan, path: Path
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        async for name, answers in self._answers(base, adapters, plan, self.records, self.wishes.answer_tokens):
            lines = [answer_line(record, name, answer) for record, answer in zip(self.records, answers, strict=True)]
            await asyncio.to_thread(append_durably, path, b"".join(lines))

    async def _answers(
        self, base: Path, adapters: Mapping[str, Path | None], plan: DevicePlan, records: Sequence[Record], limit: int
    ) -> AsyncIterator[tuple[str, list[str]]]:
        """Yield each model's greedy answers to these rows."""
        speaking = self.speaking or worker_voices
        async with speaking(base, plan, adapters, self.prompt) as voice:
            for name in adapters:
                tell = self._progress(f"{name} answers")
                answers = []
                for done, record in enumerate(records):
                    tell(TrainingProgress("evaluate", done, len(records)))
                    pieces = voice.ask(record.messages[:-1], voice=name, max_tokens=limit, temperature=0.0, seed=0,
                                       context=record.context)  # fmt: skip
                    answers.append("".join([piece async for piece in pieces]).strip())
                yield name, answers

    async def ready(self, model: str, *, planned: bool) -> tuple[Path, DevicePlan]:
        """Return a base's folder and how it is held; a program's own measurer decides about both itself."""
        if planned:
            held = self.wishes.precision or Quantization.NF4
            return Path(model), DevicePlan("cpu", 1, held, "float32", "the program's own", 0, 0)
        return await ready(self.config, self.console, model, self.wishes.precision)

    def _progress(self, what: str) -> Callable[[TrainingProgress], None]:
        told = [-1]

        def tell(progress: TrainingProgress) -> None:
            tenth = 10 * progress.done // max(1, progress.total)
            if tenth > told[0]:
                told[0] = tenth
                self.console.say(f"  {what}: {progress.done} of {progress.total}", style="dim")

        return tell


async def measure_models(
    config: ClientConfig,
    console: Console,
    wishes: MeasureWishes,
    measurer: Measurer | None = None,
    speaking: Speaking | None = None,
) -> list[ModelResult]:
    """Measure the named models on the rows; a `measurer` of its own decides how, and no base is looked for.

    Raises ConfigError U001, DataError, DeviceError, EvaluationError V003, ModelError, StorageError.
    """
    joined = load_membership(config.paths.membership_file)
    named = named_models(wishes.models, config, joined)
    roles = _roles(wishes.roles, named)
    records = await asyncio.to_thread(_rows, config, wishes.sources)
    if wishes.rouge:  # what is missing is known before an hour of writing
        _rouge_places(records, wishes.rouge_categories)
        rouge_l([], [])
    work = Measuring(config, console, wishes, records, _prompt(wishes, joined), roles, measurer or WorkerMeasurer(),
                     speaking)  # fmt: skip
    on_base = [model for model in named if model.whole is None]
    found: list[ModelResult] = []
    if on_base:
        base, plan = await work.ready(base_wanted(config, joined, on_base), planned=measurer is not None)
        found += await work.measure(base, on_base, plan)
    for model in named:
        if model.whole is not None:
            base, plan = await work.ready(str(model.whole), planned=measurer is not None)
            found += await work.measure(base, [model], plan)
    return found


def worker_voices(
    base: Path, plan: DevicePlan, adapters: Mapping[str, Path | None], prompt: PromptSpec
) -> AbstractAsyncContextManager[Answerer]:
    """Return a worker process that speaks as each of the adapters."""
    return WorkerChat(base, plan, beside=adapters, template=prompt.template)


def named_model(text: str, config: ClientConfig, joined: Membership | None) -> Named:
    """Return what `PLACE` or `NAME=PLACE` means: base, the number of a kept version, a PEFT folder, a model's folder.

    Raises ConfigError U001 if it is none of these, MembershipError J004.
    """
    name, equals, place = text.partition("=")
    place = place if equals else name
    if place == BASE:
        return Named(name or BASE)
    if _VERSION.match(place) and joined is not None:
        kept = version_here(config.paths.adapters, joined.task_document.task.id, int(place))
        return Named(name if equals else f"version {place}", kept.folder)
    folder = Path(place).expanduser()
    shown = name if equals else folder.resolve().name
    if (folder / _ADAPTER).is_file():
        return Named(shown, folder.resolve())
    if (folder / _CONFIG).is_file():
        return Named(shown, whole=folder.resolve())
    raise ConfigError(f"{place} is neither {BASE}, nor the folder of a PEFT adapter or of a model", code="U001",
                      where="command line",
                      fix="fedit-client eval models base tuned=FOLDER --data rows.jsonl")  # fmt: skip


def answer_line(record: Record, model: str, answer: str) -> bytes:
    """Return one answer as a line of the file that a judge reads."""
    turns = record.messages[:-1]
    question = turns[0].content if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    fields: dict[str, Any] = {
        "question_id": row_name(record),
        "category": record.category,
        "question": question,
        "reference": record.messages[-1].content,
        "model": model,
        "answer": answer,
    }
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


async def ready(
    config: ClientConfig, console: Console, model: str, precision: Quantization | None
) -> tuple[Path, DevicePlan]:
    """Return a base's folder, fetched if it must be, and how it is held here; raises DeviceError, ModelError."""
    check_training_stack(config.device)
    base = await asyncio.to_thread(
        lambda: resolve_base(model, "", config.paths.cache, most_bytes=config.limits.max_base_bytes, say=console.say)
    )
    document = await asyncio.to_thread(imagined, str(base), None)
    wanted = precision or (
        Quantization.NF4 if config.device.base_class == "auto" else Quantization(config.device.base_class)
    )
    spec = document.task.base.model_copy(update={"quantization": wanted})
    document = document.model_copy(update={"task": document.task.model_copy(update={"base": spec})})
    settings = config.device.model_copy(update={"base_class": "auto"})
    return base, choose_device(document, Machine.here(), settings, None)


def base_wanted(config: ClientConfig, joined: Membership | None, models: Sequence[Named]) -> str:
    """Return where the base of the adapters lies: as named, as joined, or as the first adapter says.

    Raises ModelError M001 if nothing says so.
    """
    if config.model:
        return config.model
    if joined is not None:
        return joined.model or joined.task_document.task.base.model
    return _base_of(models)


def named_models(texts: Sequence[str], config: ClientConfig, joined: Membership | None) -> list[Named]:
    """Return what each text means; raises ConfigError U001 if it means nothing, or two have one name."""
    named = [named_model(text, config, joined) for text in texts]
    names = [model.name for model in named]
    if len(set(names)) < len(names):
        raise ConfigError(f"two models have one name: {', '.join(sorted(names))}", code="U001", where="command line",
                          fix="fedit-client eval models first=FOLDER second=FOLDER --data rows.jsonl")  # fmt: skip
    return named


def _base_of(models: Sequence[Named]) -> str:
    """The base that the first adapter says it was trained on."""
    for model in models:
        if model.adapter is not None:
            told = json.loads((model.adapter / _ADAPTER).read_text("utf-8")).get("base_model_name_or_path")
            if isinstance(told, str) and told:
                return told
    raise ModelError("nothing says which base model is meant", code="M001",
                     fix="fedit-client eval models base --model FOLDER", again="--model FOLDER")  # fmt: skip


def _rows(config: ClientConfig, sources: Sequence[Source]) -> list[Record]:
    found = [record for source in sources for record in read_here(config.paths, source).records]
    if not found:
        raise DataError("no rows were named to measure on", code="D020",
                        fix="fedit-client eval models base --data rows.jsonl", again="--data rows.jsonl")  # fmt: skip
    return found


def _rouge_places(records: Sequence[Record], categories: Sequence[str]) -> list[int]:
    """Return which rows ROUGE-L scores; raises ConfigError U001 for a category of no row, DataError D020 for none."""
    present = sorted({record.category for record in records} - {""})
    named = f"--rouge-categories {shlex.quote(','.join(present))}" if present else ""
    if unknown := [name for name in categories if name not in present]:
        have = f"those of the rows are {', '.join(present)}" if present else "the rows have none"
        raise ConfigError(f"no row is of the category {', '.join(unknown)}: {have}", code="U001", where="command line",
                          fix=named or "leave it out, or name the column: --map category=COLUMN",
                          again=named)  # fmt: skip
    wanted = categories or ROUGE_CATEGORIES
    found = [place for place, record in enumerate(records) if record.category in wanted]
    if not found:
        raise DataError(f"no row is of the categories {', '.join(wanted)}, so ROUGE-L has nothing to say", code="D020",
                        fix=f"leave out --rouge, or {named or 'give the rows a category'}")  # fmt: skip
    return found


def _prompt(wishes: MeasureWishes, joined: Membership | None) -> PromptSpec:
    """What the joined task says of prompts, unless the command line says otherwise."""
    stated = {"template": wishes.template, "cutoff_tokens": wishes.cutoff_tokens}
    known = joined.task_document.task.prompt.model_dump() if joined else {}
    return PromptSpec.model_validate(
        {**known, "min_cutoff_tokens": 0, **{name: value for name, value in stated.items() if value is not None}}
    )


def _roles(texts: Sequence[str], named: Sequence[Named]) -> dict[str, Role]:
    names = [model.name for model in named]
    roles: dict[str, Role] = {model.name: "base" for model in named if model.place == BASE}
    for text in texts:
        name, _, role = text.rpartition("=")
        if name not in names or role not in _ROLES:
            raise ConfigError(f"{text!r} is not NAME=ROLE with a role of {', '.join(_ROLES)}", code="U001",
                              where="command line", fix=f"--role {names[0]}=local",
                              again=f"--role {names[0]}=local")  # fmt: skip
        roles[name] = cast("Role", role)
    return roles
