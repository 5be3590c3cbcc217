"""The evaluation process, `python -m fedit_client.evaluation.worker`: evaluate, measure, generate, benchmark."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fedit_client.data import Message, Record, Role
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.channel import Channel, Json
from fedit_client.training.chat_template import ChatTemplate
from fedit_client.training.request import TrainingProgress
from fedit_client.training.room import run
from fedit_protocol.encoding import from_base64url
from fedit_protocol.errors import ModelError
from fedit_protocol.task import PromptSpec, TaskDocument, Template

if TYPE_CHECKING:
    from fedit_client.training.local import Loaded
    from fedit_client.training.tokenize import Example


@dataclass(frozen=True)
class Speaker:
    """A loaded model, who speaks through it, and what turns a conversation into its tokens."""

    model: Any
    tokenizer: Any
    template: Template
    chat: ChatTemplate
    voices: Mapping[str, str | None]
    """Name → the adapter's name within the model, None for the base alone."""


@contextmanager
def speaking(model: Any, adapter: str | None) -> Iterator[Any]:
    """Yield the model with one of its adapters at work, by its name within the model, or with none."""
    if adapter is not None:
        model.set_adapter(adapter)
    elif hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield model
        return
    yield model


def work(channel: Channel, message: Json, plan: DevicePlan) -> None:
    """Do what the request's verb says."""
    verbs = {"evaluate": _evaluate, "measure": _measure, "generate": _converse, "benchmark": _benchmark}
    # An adapter is looked at with all its slices, whatever rank is trained here.
    verbs[message["verb"]](channel, message, replace(plan, rank=0))


def _evaluate(channel: Channel, message: Json, plan: DevicePlan) -> None:
    from fedit_client.evaluation.loss import losses_of
    from fedit_client.training.local import load

    document = TaskDocument.model_validate(message["document"])
    records = [Record.from_json(record) for record in message["records"]]
    loaded = load(document, Path(message["base"]), plan)
    adapters: dict[str, str | None] = message["adapters"]
    losses = {}
    for place, (name, path) in enumerate(adapters.items()):

        def tell(done: int, of: int, place: int = place) -> None:
            progress = TrainingProgress("evaluate", place * of + done, len(adapters) * of)
            channel.send("progress", **asdict(progress))

        losses[name] = losses_of(loaded, document, Path(path) if path else None, records, tell)
    skipped = max((result.skipped_rows for result in losses.values()), default=0)
    channel.send("result", losses={name: vars(result) for name, result in losses.items()}, skipped_rows=skipped)


def _measure(channel: Channel, message: Json, plan: DevicePlan) -> None:
    from fedit_client.evaluation.rows import chosen_rows, trained_tokens
    from fedit_client.training.memory import peak_bytes

    document = TaskDocument.model_validate(message["document"]) if message["document"] else None
    prompt = document.task.prompt if document else PromptSpec.model_validate(message["prompt"])
    records = [Record.from_json(record) for record in message["records"]]
    adapters: dict[str, str | None] = message["adapters"]
    loaded, measures = _measuring(document, message, plan)
    seed, fraction, most = from_base64url(message["split_seed"]), message["fraction"], message["most_rows"]
    found = chosen_rows(records, loaded.tokenizer, prompt, fraction, seed, most)
    figures = {}
    for place, name in enumerate(adapters):

        def tell(done: int, of: int, place: int = place) -> None:
            channel.send("progress", **asdict(TrainingProgress("evaluate", place * of + done, len(adapters) * of)))

        began = perf_counter()
        losses, right = measures(name, found.examples, tell)
        figures[name] = {"losses": losses, "right": right, "seconds": perf_counter() - began}
    categories, tokens = [example.category for example in found.examples], trained_tokens(found.examples)
    channel.send("result", categories=categories, tokens=tokens, figures=figures, left_out=found.left_out,
                 places=[] if fraction else found.places, peak_bytes=peak_bytes(plan))  # fmt: skip


Measures = Callable[[str, Sequence["Example"], Callable[[int, int], None]], tuple[list[float], list[int]]]


def _measuring(document: TaskDocument | None, message: Json, plan: DevicePlan) -> tuple["Loaded", Measures]:
    """Load the base, and return how one named adapter on it is measured: by a task's layout, or as saved."""
    from fedit_client.evaluation.rows import figures_of, row_figures
    from fedit_client.training.local import Loaded, load
    from fedit_client.training.model import load_base
    from fedit_client.training.tokenizer import load_tokenizer

    base = Path(message["base"])
    adapters: dict[str, str | None] = message["adapters"]
    if document is not None:
        loaded = load(document, base, plan)

        def by_layout(
            name: str, examples: Sequence["Example"], tell: Callable[[int, int], None]
        ) -> tuple[list[float], list[int]]:
            path = adapters[name]
            return figures_of(loaded, document, Path(path) if path else None, examples, tell)

        return loaded, by_layout
    # As for training: a repacked base computes a little differently, and a loss should not depend on who asks for it.
    model, voices = _attached(load_base(base, plan), adapters)
    saved = Loaded(model, load_tokenizer(base))

    def as_saved(
        name: str, examples: Sequence["Example"], tell: Callable[[int, int], None]
    ) -> tuple[list[float], list[int]]:
        with speaking(model, voices[name]):
            return row_figures(saved, examples, tell)

    return saved, as_saved


def _benchmark(channel: Channel, message: Json, plan: DevicePlan) -> None:
    from fedit_client.evaluation.harness import scores_of
    from fedit_client.training.model import load_base
    from fedit_client.training.tokenizer import load_tokenizer

    base = Path(message["base"])
    tokenizer = load_tokenizer(base)
    model, voices = _attached(load_base(base, plan, for_training=False), message["adapters"])
    scores = {}
    for place, (name, inner) in enumerate(voices.items()):
        channel.send("progress", **asdict(TrainingProgress("evaluate", place, len(voices))))
        with speaking(model, inner) as voice:
            scores[name] = scores_of(voice, tokenizer, message)
    channel.send("result", scores=scores)


def _converse(channel: Channel, message: Json, plan: DevicePlan) -> None:
    """Load once, say so, then answer question after question until the parent closes the pipe."""
    model, tokenizer, template = _load_for_chat(message, plan)
    model, voices = _with_voices(model, message)
    channel.send("ready")
    with ChatTemplate(tokenizer) as chat:
        speaker = Speaker(model, tokenizer, template, chat, voices)
        while True:
            question = channel.receive()
            # A stop that came after the answer's own end refers to nothing any more.
            if "stop" not in question:
                _answer(channel, question, speaker)


def _load_for_chat(message: Json, plan: DevicePlan) -> tuple[Any, Any, Template]:
    from fedit_client.training.local import load
    from fedit_client.training.model import attach_saved, load_base, load_tensors, write_adapter
    from fedit_client.training.tokenizer import load_tokenizer

    base, adapter = Path(message["base"]), Path(message["adapter"]) if message["adapter"] else None
    document = TaskDocument.model_validate(message["document"]) if message["document"] else None
    template = document.task.prompt.template if document else Template(message["template"])
    if adapter is not None and not adapter.is_dir():
        if document is None:
            raise ModelError(
                "an adapter file without its task document cannot be attached", code="M004", where=str(adapter)
            )
        loaded = load(document, base, plan)
        write_adapter(loaded.model, load_tensors(adapter, document.built))
        return loaded.model, loaded.tokenizer, template
    model = load_base(base, plan, for_training=False)
    return attach_saved(model, adapter) if adapter else model, load_tokenizer(base), template


def _with_voices(model: Any, message: Json) -> tuple[Any, dict[str, str | None]]:
    """Attach further adapters to the one base; the first voice has no name."""
    model, voices = _attached(model, message["beside"])
    return model, {"": "default" if message["adapter"] else None, **voices}


def _attached(model: Any, folders: Mapping[str, str | None]) -> tuple[Any, dict[str, str | None]]:
    """Attach PEFT folders to one base; return it, and each one's name within it, None for the base alone."""
    from fedit_client.training.model import attach_another

    voices: dict[str, str | None] = {}
    for number, (name, folder) in enumerate(folders.items()):
        inner = f"beside{number}" if folder else None
        if folder:
            model = attach_another(model, Path(folder), f"beside{number}")
        voices[name] = inner
    return model, voices


def _answer(channel: Channel, question: Json, speaker: Speaker) -> None:
    from fedit_client.evaluation.generate import generate
    from fedit_client.evaluation.sampling import Sampling
    from fedit_client.training.tokenize import prompt_ids

    messages = [Message(Role(role), content) for role, content in question["messages"]]
    prompt = prompt_ids(messages, speaker.tokenizer, speaker.template, speaker.chat, question["context"])
    with speaking(speaker.model, speaker.voices[question["voice"]]) as model:
        for piece in generate(
            model,
            speaker.tokenizer,
            prompt,
            max_tokens=question["max_tokens"],
            sampling=Sampling(**question["sampling"]),
            should_stop=channel.has_news,
        ):
            channel.send("piece", text=piece)
    channel.send("end")


if __name__ == "__main__":
    run(work)
