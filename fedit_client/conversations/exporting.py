"""`export`: one adapter version of this device, in the form that another program loads."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Any, Final

from fedit_client.adapters.editions import KeptVersion
from fedit_client.adapters.personal import FOLDER, adapter_here
from fedit_client.base.model import hub_revision, licence_of, resolve_base
from fedit_client.config import ClientConfig
from fedit_client.consent.terms import size_text
from fedit_client.export.gguf_file import About, gguf_plan, write_gguf, write_lora
from fedit_client.export.merged import merged_bytes, write_merged
from fedit_client.export.merging import Base, Delta, delta_of
from fedit_client.export.ollama import MODELFILE, modelfile
from fedit_client.export.peft import write_peft
from fedit_client.export.place import made_whole
from fedit_client.export.precision import Precision, Survival
from fedit_client.export.tensors import OnTensor
from fedit_client.export.tokens import end_piece, tokens_of
from fedit_client.export.turns import Turns, turns_of
from fedit_client.home.durable import translating
from fedit_client.home.paths import free_name
from fedit_client.membership.joined import joined_or_left
from fedit_protocol.errors import ConfigError, ModelError
from fedit_protocol.peft_folder import CARD, WEIGHTS, Edition, Usage, model_card, peft_usage
from fedit_protocol.task import Task, TaskDocument, Template

_SPARE_BYTES: Final = 32 * 1024 * 1024
"""Tokenizer, template and headers."""


_MUCH: Final = 0.3
_TOLD_BYTES: Final = 1_000_000_000


class Form(StrEnum):
    """What can be made."""

    PEFT = "peft"
    MERGED = "merged"
    GGUF = "gguf"
    GGUF_LORA = "gguf-lora"
    OLLAMA = "ollama"


_ALONE: Final = frozenset({Form.PEFT, Form.GGUF_LORA})
"""The adapter by itself, in float32 as it was trained."""


_LOADED_BY: Final = {
    Form.MERGED: ("transformers", "huggingface", "hf", "vllm", "safetensors", "tgi", "full"),
    Form.GGUF: ("llama.cpp", "llamacpp", "llama-cpp", "llama-server", "lmstudio", "lm-studio", "gpt4all", "koboldcpp"),
    Form.PEFT: ("lora", "adapter"),
    Form.GGUF_LORA: ("gguf_lora", "lora-gguf", "ggml-lora"),
}
"""Programs and other names → the form that is meant."""


def form_named(name: str) -> Form:
    """Return a form by its name; raises ConfigError U080 with the nearest for anything else."""
    wanted = name.strip().lower()
    if wanted in set(Form):
        return Form(wanted)
    others = {other: form for form, names in _LOADED_BY.items() for other in names}
    near = next(iter(get_close_matches(wanted, [*others, *Form], n=1)), None)
    meant = None if near is None else others.get(near) or Form(near)
    hint = f"; for {near} it is {meant}" if near in others else ""
    raise ConfigError(f"{name} is no form of export{hint}; there are {', '.join(Form)}", code="U080",
                      fix=f"fedit-client export --to {meant or Form.MERGED}",
                      again=f"--to {meant or Form.MERGED}")  # fmt: skip


@dataclass(frozen=True)
class ExportWishes:
    """What the owner said on the command line; None leaves the choice to the form."""

    form: Form
    out: Path | None = None
    version: int | None = None
    precision: Precision | None = None
    personal: bool = False
    """The adapter that the task's method keeps on this device alone, in place of a version."""


@dataclass(frozen=True)
class Made:
    """What came of it."""

    folder: Path
    version: int
    precision: Precision | None
    survival: Survival | None
    following: tuple[str, ...]
    """The exact commands that come next."""

    def as_data(self) -> dict[str, Any]:
        """The result, for programs."""
        return {
            "folder": str(self.folder),
            "version": self.version,
            "dtype": self.precision,
            "adapter": self.survival.as_data() if self.survival else None,
            "next": list(self.following),
        }

    def lines(self) -> list[str]:
        """The result, for people."""
        told = [self.survival.line(self.precision)] if self.survival and self.precision else []
        if self.survival and self.survival.lost > _MUCH:
            told.append("that is much; --dtype f32 keeps all of it, and f16 more than bf16 or q8_0")
        return [*told, f"wrote {self.folder}", "next:", *(f"  {line}" for line in self.following)]


def export(config: ClientConfig, wishes: ExportWishes, say: Callable[[str], None] = lambda _: None) -> Made:
    """Make one export, which takes seconds to minutes; the folder appears complete or not at all.

    Raises MembershipError J001, J004; ConfigError U001, U010; ModelError M001 to M004, M010 to M013; StorageError S020;
    DeviceError H005 without the `gguf` package.
    """
    membership = joined_or_left(config.paths)
    document = membership.task_document
    kept = adapter_here(config.paths.adapters, document, wishes.version, personal=wishes.personal)
    if wishes.form in _ALONE and wishes.precision not in (None, Precision.F32):
        raise ConfigError(f"an adapter alone stays in f32, so --dtype says nothing for {wishes.form}", code="U001",
                          fix=f"fedit-client export --to {wishes.form}")  # fmt: skip
    if wishes.form is Form.MERGED and wishes.precision is Precision.Q8_0:
        raise ConfigError("q8_0 is a form of GGUF files only", code="U001",
                          fix="fedit-client export --to gguf --dtype q8_0")  # fmt: skip
    if wishes.form is Form.PEFT:
        return _export_peft(config, document.task, kept, wishes, say)
    stated = document.task.base
    folder = resolve_base(
        config.model or membership.model or stated.model,
        stated.revision,
        config.paths.cache,
        most_bytes=config.limits.max_base_bytes,
        expected=stated.digest or None,
        say=say,
    )
    home = f" --home {quote(str(config.home))}" if config.home else ""
    work = _Work(document, kept, Base(folder), wishes, say, f"fedit-client{home}")
    return work.make(*_place(config, document.task, kept, wishes, work.precision))


def _place(
    config: ClientConfig, task: Task, kept: KeptVersion, wishes: ExportWishes, precision: Precision | None
) -> tuple[Path, str]:
    """Where an export goes, and the name of what is in it."""
    which = FOLDER if wishes.personal else f"v{kept.version}"
    name = "-".join([task.id, which, wishes.form, *([precision] if precision else [])])
    return (wishes.out or config.paths.exports / name).expanduser().absolute(), name


def _export_peft(
    config: ClientConfig, task: Task, kept: KeptVersion, wishes: ExportWishes, say: Callable[[str], None]
) -> Made:
    """The adapter by itself: no base is needed, and none is fetched."""
    target, _ = _place(config, task, kept, wishes, None)
    say(f"peft of adapter version {kept.version}, into {target} …")
    revision = task.base.revision or hub_revision(task.base.model, "")
    with translating(kept.folder):
        needed = (kept.folder / WEIGHTS).stat().st_size
    with made_whole(target, needed + _SPARE_BYTES) as folder:
        write_peft(task, kept.folder, revision, folder)
        known = replace(kept.edition, licence=kept.edition.licence or licence_of(task.base.model))
        _write_card(folder, task, known, peft_usage(task.base.model))
    code = f"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('{target}')"
    return Made(target, kept.version, None, None, (f'python -c "{code}"',))


@dataclass(frozen=True)
class _Work:
    """One export on its way."""

    document: TaskDocument
    kept: KeptVersion
    base: Base
    wishes: ExportWishes
    say: Callable[[str], None]
    client: str
    """How this client is called again, on the same home."""

    @property
    def task(self) -> Task:
        return self.document.task

    @property
    def precision(self) -> Precision | None:
        form = self.wishes.form
        if form in _ALONE:
            return None
        return self.wishes.precision or (self.base.precision if form is Form.MERGED else Precision.F16)

    def make(self, target: Path, name: str) -> Made:
        self.say(f"{self.wishes.form} of adapter version {self.kept.version}, into {target} …")
        write = {
            Form.MERGED: self._merged,
            Form.GGUF: self._gguf,
            Form.GGUF_LORA: self._gguf_lora,
            Form.OLLAMA: self._ollama,
        }[self.wishes.form]
        needed = self._needed()
        with made_whole(target, needed) as folder:
            survival, usage, following = write(folder, target, name)
            known = replace(self.kept.edition, licence=self._licence)
            _write_card(folder, self.task, known, usage)
        return Made(target, self.kept.version, self.precision, survival, following)

    def _needed(self) -> int:
        if self.precision is None:
            return self.document.built.size * 4 + _SPARE_BYTES
        if self.wishes.form is Form.MERGED:
            return merged_bytes(self.base, self.precision) + _SPARE_BYTES
        return sum(tensor.size for tensor in gguf_plan(self.base, self.precision)) + _SPARE_BYTES

    def _merged(self, folder: Path, target: Path, _: str) -> "_Written":
        precision = self.precision or Precision.F32
        survival = write_merged(self.base, self._delta(), precision, folder, self._own_template(), self._tell())
        code = f"from transformers import pipeline; print(pipeline('text-generation', '{target}')('Hello'))"
        usage = _usage("transformers", "python", "from transformers import AutoModelForCausalLM\n\n"
                       'model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")')  # fmt: skip
        return survival, usage, (f'python -c "{code}"', f"vllm serve {target}")

    def _gguf(self, folder: Path, target: Path, name: str) -> "_Written":
        survival = self._write_gguf(folder / f"{name}.gguf", name)
        line = f"llama-server -m {target / name}.gguf"
        return survival, _usage("gguf", "sh", f"llama-server -m {name}.gguf"), (line,)

    def _gguf_lora(self, folder: Path, target: Path, name: str) -> "_Written":
        write_lora(self.base, self._delta(), self.task.adapter.alpha, self._about(name), folder / f"{name}.gguf")
        beside = target.with_name(f"{self.task.id}-base")
        plain = free_name(beside) if beside.exists() else beside
        make, file = self._make_base(plain)
        line = f"llama-server -m {quote(str(file))} --lora {quote(str(target / name))}.gguf"
        usage = _usage("gguf", "sh", f"llama-server -m BASE.gguf --lora {name}.gguf  # {self.task.base.model} as GGUF")
        return None, usage, (*make, line)

    def _make_base(self, plain: Path) -> tuple[tuple[str, ...], Path]:
        """Return the commands that make the base's own GGUF file, and where it will lie.

        The untrained version changes nothing: merged, it is the base. Where there is none, for the task went on from
        an adapter, or the tokenizer is one that this exporter does not know (M012), llama.cpp's own converter is left.
        """
        try:
            tokens_of(self.base)
            gguf_plan(self.base, Precision.F16)
            can_make = not self.task.adapter.start
        except ModelError:
            can_make = False
        if not can_make:
            file = plain.with_suffix(".gguf")
            line = f"python convert_hf_to_gguf.py {quote(str(self.base.folder))} --outfile {quote(str(file))}"
            return (f"{line}   # of llama.cpp",), file
        make = f"{self.client} export --to gguf --version 0 --out {quote(str(plain))}"
        pull = () if self.has_untrained else (f"{self.client} adapters pull 0",)
        return (*pull, make), plain / f"{self.task.id}-v0-gguf-f16.gguf"

    @property
    def has_untrained(self) -> bool:
        """Whether version 0 is on this device."""
        return (self.kept.folder.parent / "0" / CARD).exists()

    def _ollama(self, folder: Path, target: Path, name: str) -> "_Written":
        tokens = tokens_of(self.base)
        turns = turns_of(self.base, tokens, self.task.prompt.template)
        words = modelfile(f"{name}.gguf", tokens, turns, self.task.prompt.cutoff_tokens)
        survival = self._write_gguf(folder / f"{name}.gguf", name)
        with translating(folder):
            (folder / MODELFILE).write_text(words, "utf-8")
        create = f"ollama create {self.task.id}:v{self.kept.version} -f {target / MODELFILE}"
        usage = _usage("gguf", "sh", f"ollama create {self.task.id} -f {MODELFILE}")
        return survival, usage, (create, f"ollama run {self.task.id}:v{self.kept.version}")

    def _write_gguf(self, path: Path, name: str) -> Survival:
        tokens = tokens_of(self.base)
        if template := self._own_template():
            tokens = replace(tokens, template=template)
        precision = self.precision or Precision.F16
        return write_gguf(self.base, self._delta(), precision, self._about(name), path, tokens, self._tell())

    def _tell(self) -> OnTensor:
        """Say each tenth of a large export; a small one is done before anybody reads."""
        told = [0]

        def tell(done: int, of: int) -> None:
            tenth = 10 * done // of
            if tenth > told[0] and of > _TOLD_BYTES:
                told[0] = tenth
                self.say(f"  written: {size_text(done)} of {size_text(of)}")

        return tell

    def _own_template(self) -> str:
        """A chat template for prompts that are not the base's own; "" where they are."""
        if self.task.prompt.template is Template.CHAT:
            return ""
        return Turns.of_prompt(self.task.prompt.template, end_piece(self.base)).as_jinja()

    def _delta(self) -> Delta:
        return delta_of(self.kept.folder, self.document)

    def _about(self, name: str) -> About:
        words = f"{self.task.title}, adapter version {self.kept.version} of the federated task {self.task.label}"
        return About(name, words, self.task.base.model, self._licence)

    @property
    def _licence(self) -> str:
        return licence_of(self.task.base.model, self.base.folder)


def _write_card(folder: Path, task: Task, edition: Edition, usage: Usage) -> None:
    with translating(folder):
        (folder / CARD).write_text(model_card(task, edition, usage), "utf-8")


_Written = tuple[Survival | None, Usage, tuple[str, ...]]


def _usage(library: str, language: str, code: str) -> Usage:
    return Usage(library, f"```{language}\n{code}\n```", ())
