"""One adapter version as files that plain PEFT loads: names, `adapter_config.json`, and the model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedit_protocol.ids import Digest
from fedit_protocol.task import Mode, Task, Template

WEIGHTS: Final = "adapter_model.safetensors"
FACTORS: Final = "factors.safetensors"
"""What travelled, where the weights that PEFT loads are built from something else; its digest is the version's."""
CONFIG: Final = "adapter_config.json"
CARD: Final = "README.md"
STATE: Final = "state.safetensors"
"""What the task's method has devices know besides the adapter."""


@dataclass(frozen=True)
class OwnLoss:
    """What one device saw on rows of its own that nobody trains on; losses are nats per token, lower is better.

    `base` is that of the base alone, where it was measured too; `trained` that of what this device made of the version
    by its own training, which stands on no card.
    """

    loss: float
    rows: int | None = None
    base: float | None = None
    trained: float | None = None


@dataclass(frozen=True)
class Edition:
    """What the model card says of one version; a device that only fetched it knows no round and no devices.

    `epsilon` and `delta` are what all rounds together can tell about one device, in tasks with noise. `licence` is the
    base's, where it is known. `rounds` are those that led to it. `tested` are versions with their loss on held-out
    rows, each a mean over the devices of the round that began with it; version 0 is the base alone, unless the task
    goes on from an adapter.
    """

    version: int
    digest: Digest
    parent_digest: str | None = None
    round_no: int | None = None
    survivors: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    licence: str = ""
    own: OwnLoss | None = None
    rounds: int | None = None
    tested: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """How the files beside a card are loaded: the library's tag, and a block of code in Markdown."""

    library: str
    block: str
    tags: tuple[str, ...] = ("lora",)


def peft_config(task: Task, rank: int = 0) -> dict[str, Any]:
    """Return `adapter_config.json` as PEFT 0.21 reads it; defaults are stated where they matter.

    A `rank` is that of an adapter together with its side delta, whose scale is 1.
    """
    return {
        "base_model_name_or_path": task.base.model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank or _plain(task.adapter.alpha),
        "lora_dropout": task.adapter.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank or task.adapter.rank,
        "revision": task.base.revision or None,
        "target_modules": list(task.adapter.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def config_bytes(task: Task, rank: int = 0) -> bytes:
    """Return the bytes of `adapter_config.json`."""
    return (json.dumps(peft_config(task, rank), indent=2, sort_keys=True) + "\n").encode()


def peft_usage(model: str) -> Usage:
    """Return how an adapter is loaded on its base."""
    return Usage(
        "peft",
        f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{model}")
model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")
```""",
    )


def model_card(task: Task, edition: Edition, usage: Usage | None = None) -> str:
    """Return README.md: where the adapter comes from, what is known of it, and how to load it.

    The same facts give the same text; it holds nothing about a person or a machine but the losses in `edition.own`.
    """
    use = usage or peft_usage(task.base.model)
    tags = [*use.tags, "federated-learning", "fedit"]
    header: dict[str, Any] = {"base_model": task.base.model, "library_name": use.library, "tags": tags}
    if edition.licence:
        header["license"] = edition.licence.lower()
    return f"""---
{_front_matter(header)}
---
# {task.title}, adapter version {edition.version}

{_origin(task, edition)}
Trained with FedIT: the rows stayed on the devices, and {_who_saw(task)}.

| | |
|---|---|
| base model | `{task.base.model}`{f" at `{task.base.revision}`" if task.base.revision else ""} |
| base digest | `{task.base.digest}` |
| licence of the base | {edition.licence or "see its publisher; the adapter is a work on top of it"} |
| LoRA | rank {task.adapter.rank}, alpha {_plain(task.adapter.alpha)}, {", ".join(task.adapter.target_modules)} |
| prompts | template `{task.prompt.template}`{_of_the_base(task)}, {task.prompt.cutoff_tokens} tokens |
| privacy | {_privacy(edition)} |
{_tested_row(task, edition)}{_own_row(edition)}| adapter digest | `{edition.digest}` |
{_parent_row(edition)}
{use.block}

## Limits
- It works on the base model above, by its digest, and on no other; what holds for the base holds for it.
- Nobody but their owners has seen the rows that it learned from: they may be wrong, one-sided or few. Test it on your
  own before you rely on it, and let no decision about a person rest on it alone.
- {_what_may_leak(edition)}
"""


def _who_saw(task: Task) -> str:
    if task.round.mode is Mode.TRUSTED:
        return "the server saw each device's update"
    return "the server saw only the sum of their masked updates"


def _of_the_base(task: Task) -> str:
    return " (the base's own)" if task.prompt.template is Template.CHAT else ""


def _privacy(edition: Edition) -> str:
    if edition.epsilon is None or edition.delta is None:
        return "no noise was added, so there is no epsilon"
    return f"epsilon at most {edition.epsilon:.3g} for one device over all rounds so far, delta {edition.delta:.0e}"


def _what_may_leak(edition: Edition) -> str:
    if edition.epsilon is None:
        return "What a model has learned can sometimes be drawn out of it again; without noise nothing bounds how much."
    return "The epsilon above bounds what it says about any one device, not what it says about all of them."


def _tested_row(task: Task, edition: Edition) -> str:
    if not edition.tested:
        return ""
    said = ", ".join(
        f"{loss:.3f} for {f'version {version}' if version or task.adapter.start else 'the base alone'}"
        for version, loss in edition.tested
    )
    return f"| evaluation | held-out loss {said}: means over the devices of a round |\n"


def _own_row(edition: Edition) -> str:
    own = edition.own
    if own is None:
        return ""
    rows = "" if own.rows is None else f"{own.rows} "
    base = "" if own.base is None else f", {own.base:.3f} for the base alone"
    return f"| evaluation | loss {own.loss:.3f}{base}, on {rows}held-out rows of one device |\n"


def _origin(task: Task, edition: Edition) -> str:
    if edition.version == 0:
        if task.adapter.start:
            return f"An adapter, trained before, that the federated task `{task.label}` goes on from."
        return f"The untrained starting point of the federated task `{task.label}`."
    if edition.round_no is None or edition.survivors is None:
        return f"A version of the federated task `{task.label}`, run by {task.operator or 'an unnamed operator'}."
    devices = bucket(edition.survivors)
    many = "" if edition.rounds is None else f" It is the outcome of {edition.rounds} committed rounds."
    return f"Round {edition.round_no} of the federated task `{task.label}`, from {devices} devices.{many}"


def _parent_row(edition: Edition) -> str:
    return "" if edition.parent_digest is None else f"| parent digest | `{edition.parent_digest or 'none'}` |\n"


def bucket(count: int) -> str:
    """Return a count in coarse words: a card travels further than the federation."""
    for low, high in ((3, 9), (10, 19), (20, 49), (50, 99), (100, 128)):
        if low <= count <= high:
            return f"{low} to {high}"
    return "fewer than 3" if count < 3 else "more than 128"


def _front_matter(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())


def _plain(value: float) -> float | int:
    """PEFT documents lora_alpha as a whole number; a fraction is kept as it is."""
    return int(value) if value == int(value) else value
