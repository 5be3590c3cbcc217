"""What differs between two versions of a task, in the owner's words: old → new, the weightiest first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from fedit_client.consent.terms import plain, size_text, summarise
from fedit_protocol.accounting import planned_epsilon
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import FeditError
from fedit_protocol.limits import Limits
from fedit_protocol.task import Task, TaskDocument

_NONE: Final = "none"
_FEW: Final = 3

# In the order in which they matter to an owner: who, which model, what is done with the rows, who is hidden, the rest.
_WORDS: Final[dict[str, str]] = {
    "operator": "who runs it",
    "base.model": "base model",
    "base.revision": "revision of the base model",
    "base.digest": "files of the base model",
    "base.quantization": "precision of the base model",
    "base.classes": "base classes that may meet",
    "canary.rows": "public rows that compare base classes",
    "canary.hidden_among": "fewest honest devices of a base class behind its canary loss",
    "fairness": "losses by domain, and weights that follow them",
    "fairness.domains": "domains whose losses are summed, and which your device says it has",
    "fairness.hidden_among": "fewest honest devices behind the loss of a domain",
    "fairness.rule": "how much a device counts",
    "prompt.template": "how rows become text",
    "prompt.train_on_inputs": "learning from questions too, not from answers only",
    "prompt.cutoff_tokens": "tokens per example",
    "training.epochs": "passes over your rows in a round",
    "training.local_steps": "training steps in a round",
    "training.proximal": "how strongly training is drawn back to the global adapter",
    "training.held_out_fraction": "share of your rows kept for evaluation",
    "training.batch_size": "rows behind one training step",
    "round.mode": "from whom an update is hidden (mode)",
    "round.cohort_min": "fewest devices in a round",
    "round.cohort_size": "most devices in a cohort",
    "round.min_survivors": "fewest updates that may be summed",
    "round.corrupt_fraction": "share of devices assumed to collude",
    "round.dropout_fraction": "share of devices that may drop out",
    "round.threshold": "shares that rebuild a lost device's mask",
    "round.min_cert_age_h": "hours since enrolment before a device may take part",
    "round.strict": "devices confirm the set of survivors first",
    "privacy": "noise for differential privacy",
    "privacy.noise_multiplier": "noise, in clips",
    "privacy.delta": "delta of the privacy budget",
    "privacy.accept_weak": "noise that protects little is accepted",
    "encoding.clip_norm": "longest update that counts (clip)",
    "encoding.value_bits": "bits of one number of the update",
    "encoding.value_range": "range of one number of the update",
    "encoding.max_weight": "largest weight of one device",
    "encoding.rows_per_weight": "rows that count as one unit of weight",
    "round.rounds": "rounds",
    "adapter.rank": "LoRA rank",
    "adapter.target_modules": "layers that are adapted",
    "method.name": "method of aggregation",
    "method.diversity": "the length of your update is summed",
    "gates.max_loss_ratio": "held-out loss that evaluators may report, new over old",
    "round.cohorts": "cohorts of a round",
    "round.combine": "how cohorts are combined",
    "round.selection": "how devices are drawn",
    "selection.domains": "categories of rows that are counted",
    "optimizer.name": "how the server steps",
    "optimizer.fednova": "updates are divided by their steps",
    "title": "title",
    "training.learning_rate": "learning rate",
    "training.schedule": "course of the learning rate",
}
_PLACES: Final = {name: place for place, name in enumerate(_WORDS)}


@dataclass(frozen=True)
class TaskChange:
    """One thing that is no longer as it was agreed to."""

    name: str
    """The setting of the task file, such as `prompt.cutoff_tokens`, or what follows from several of them."""
    words: str
    old: str
    new: str

    def line(self) -> str:
        """The change as people read it."""
        return f"{self.words}: {self.old} → {self.new}"


def differences(
    old: TaskDocument, new: TaskDocument, descriptor: FederationDescriptor, limits: Limits
) -> tuple[TaskChange, ...]:
    """Return everything that differs but the version, the weightiest first; what follows from it comes at the end."""
    before, after = (dict(_leaves(document.task.model_dump(mode="json"))) for document in (old, new))
    for leaves in (before, after):
        leaves.pop("version")
        # Shown as the consent text shows it: without a name of its own the federation runs the task.
        leaves["operator"] = leaves["operator"] or descriptor.name
    names = sorted({*before, *after}, key=lambda name: (_PLACES.get(name, len(_PLACES)), name))
    changes = [
        TaskChange(name, in_words(name), _value(before.get(name)), _value(after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
    ]
    return (*changes, *_following(old, new, descriptor, limits))


def changed_text(old: TaskDocument, new: TaskDocument, changes: tuple[TaskChange, ...]) -> str:
    """Return the one sentence of A003: which version, and the first few changes."""
    told = "; ".join(change.line() for change in changes[:_FEW]) or "its words"
    more = f"; and {len(changes) - _FEW} more" if len(changes) > _FEW else ""
    versions = f"version {old.task.version} → {new.task.version}"
    return f"the task changed since you agreed ({versions}): {told}{more}; training is paused"


def _following(
    old: TaskDocument, new: TaskDocument, descriptor: FederationDescriptor, limits: Limits
) -> Iterator[TaskChange]:
    """What no single setting says: how well an update hides, what epsilon is promised, what is uploaded."""
    try:
        before, after = (summarise(document, descriptor, limits) for document in (old, new))
    except FeditError:  # outside the owner's limits: that refusal is shown by itself
        return
    pairs = (
        ("hidden_among", "devices that you hide among, at least", str(before.hidden_among), str(after.hidden_among)),
        ("epsilon", "epsilon promised over all rounds", _epsilon(old), _epsilon(new)),
        ("upload", "upload a round", size_text(before.upload_bytes), size_text(after.upload_bytes)),
    )
    yield from (TaskChange(name, words, was, now) for name, words, was, now in pairs if was != now)


def _epsilon(document: TaskDocument) -> str:
    return f"{planned_epsilon(document):.3g}" if document.task.privacy else "no bound"


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def in_words(name: str) -> str:
    """Return the words for a setting of a task: its own, or its name with what the task's reference says of it."""
    return _WORDS.get(name) or f"{name} ({_description(Task, name.split('.'))})"


def _description(model: type[BaseModel], path: list[str]) -> str:
    field = model.model_fields.get(path[0])
    if field is None:
        return "unknown"
    inner = [kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_model(kind)]
    if len(path) > 1 and inner:
        return _description(inner[0], path[1:])
    return field.description or path[0]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _value(value: Any) -> str:
    match value:
        case None | "" | []:
            return _NONE
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case [dict(), *_]:
            return f"{len(value)} row" + "s" * (len(value) > 1)
        case list():
            return plain(", ".join(map(str, value)))
        case _:
            text = plain(str(value))
            return f"{text[:19]}…" if text.startswith("sha256:") else text
