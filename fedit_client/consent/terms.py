"""What the owner agrees to, as words and as data, made from the task and from nothing that a server words freely."""

from dataclasses import dataclass
from typing import Final

from fedit_client.consent.method_words import trained_words
from fedit_protocol.accounting import planned_epsilon
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConsentError
from fedit_protocol.limits import Limits, check_task
from fedit_protocol.modes import check_federation_mode
from fedit_protocol.round_plan import allowed_sums, sealed_spec
from fedit_protocol.sealed.updates import sealed_length
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode, Selection, Task, TaskDocument
from fedit_protocol.task_fairness import FairRule
from fedit_protocol.task_selection import DECLARED, SEEN
from fedit_protocol.words import counted

_FILES: Final = "your files, prompts, answers and file names"
_NAMES: Final = "host name, user name, serial numbers"
NEVER_LEAVES: Final = (_FILES, "your update, row count and losses in readable form", _NAMES)
"""In masked rounds; in trusted ones the server reads the update, the row count and the losses."""
SEEN_BY: Final = (
    "What a round makes is seen by the organiser, by every member as the next adapter, and by evaluators: devices that "
    "the organiser names to compare it with what was before, also where it is held or rejected"
)
YOUR_LIMITS: Final = (
    "The limits are yours: what they forbid is refused whatever the task says (fedit-client policy show)"
)
_ADVISED: Final = 10
_SHOWN_DOMAINS: Final = 8
_OPENED: Final = "the server opens it: nothing hides your update, row count and losses among those of others"
_TRUSTED_LEVEL: Final = (
    "Level T0, weaker than masked rounds: the server sees each update; only the network, proxies and disks do not"
)
_TRUSTED_WARNINGS: Final = (
    "A single update can reveal rows that it was trained on: agree only if you would trust this operator with them",
)


@dataclass(frozen=True)
class Consent:
    """An owner's yes to one version of one task, bound to its digest; `ConsentSummary.accept` makes it."""

    label: str
    document_digest: str


@dataclass(frozen=True)
class ConsentSummary:
    """The task in the owner's words. `label` is what `--accept` takes; `digest` what the yes is bound to."""

    label: str
    digest: str
    title: str
    operator: str
    model: str
    training: str
    leaves_masked: tuple[str, ...]
    leaves_sealed: tuple[str, ...]
    """What the server reads of this device by itself; empty unless the task is in trusted mode."""
    leaves_in_clear: tuple[str, ...]
    never_leaves: tuple[str, ...]
    hidden_among: int
    """Honest devices behind the smallest thing that the server sees; 0 where it sees single updates."""
    upload_bytes: int
    level: str
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The whole summary as plain lines, for any place that shows it."""
        return [
            f"{self.title} · run by {self.operator} · {self.label}",
            f"{self.model} · {self.training}",
            *_listed("Leaves this machine, readable by the server:", self.leaves_sealed),
            *_listed("Leaves this machine, masked:", self.leaves_masked),
            "Leaves this machine, in clear:",
            *(f"  • {line}" for line in self.leaves_in_clear),
            "Never leaves:",
            *(f"  • {line}" for line in self.never_leaves),
            SEEN_BY,
            self.level,
            *self.warnings,
            YOUR_LIMITS,
        ]

    def accept(self) -> Consent:
        """Say yes, on behalf of the owner."""
        return Consent(self.label, self.digest)


def summarise(document: TaskDocument, descriptor: FederationDescriptor, limits: Limits) -> ConsentSummary:
    """Return what this task means for the owner; raises TaskRefusedError if it lies outside the limits."""
    weakest = check_task(document, limits)
    task = document.task
    check_federation_mode(task.round.mode, descriptor)
    size = upload_bytes(document)
    hidden = weakest.hidden_among if weakest else 0
    update = f"an adapter update of {size_text(size)} a round, {_company(task)}"
    modules = plain(", ".join(task.adapter.target_modules))
    return ConsentSummary(
        label=task.label,
        digest=document.digest,
        title=plain(task.title),
        operator=plain(task.operator or descriptor.name) or "an unnamed operator",
        model=plain(f"{task.base.model} in {' or '.join(task.base.allowed)}"),
        training=f"{trained_words(task, modules)}, {counted(task.round.rounds, 'round')}"
        + (", going on from an adapter that the organiser brings" if task.adapter.start else ""),
        leaves_masked=(update, *_hidden(document, hidden)) if weakest else (),
        leaves_sealed=() if weakest else (f"{update}, sealed on the way", _OPENED),
        leaves_in_clear=(
            "the client's version, the kind of device (such as cpu or nvidia-8gb), the name that you choose to show",
            "when you take part; the server sees your network address",
            *_class_in_clear(task),
            *_declared(task),
            *_domains_in_clear(task),
        ),
        never_leaves=NEVER_LEAVES if weakest else (_FILES, _NAMES),
        hidden_among=hidden,
        upload_bytes=size,
        level=_level(descriptor) if weakest else _TRUSTED_LEVEL,
        warnings=tuple(_small(weakest)) if weakest else _TRUSTED_WARNINGS,
    )


def check_consent(summary: ConsentSummary, consent: Consent) -> None:
    """Raise ConsentError A003 unless the yes is to this very document."""
    if (consent.label, consent.document_digest) != (summary.label, summary.digest):
        raise ConsentError(
            f"the task changed since you agreed ({consent.label} → {summary.label}), so nothing is trained",
            code="A003",
            fix="fedit-client consent diff",
        )


def missing_consent(label: str) -> ConsentError:
    """The error of a program without a terminal that was not told what the owner agrees to."""
    return ConsentError(f"nobody is here to agree to the task {label}; read what it says, then agree by its name",
                        code="A001", fix=f"fedit-client join --accept {label}", again=f"--accept {label}")  # fmt: skip


def plain(text: str) -> str:
    """Return a server's words without anything that could steer a terminal."""
    return "".join(symbol for symbol in text if symbol.isprintable())


def size_text(size: int) -> str:
    """Bytes as people read them."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _listed(head: str, lines: tuple[str, ...]) -> list[str]:
    return [head, *(f"  • {line}" for line in lines)] if lines else []


def upload_bytes(document: TaskDocument) -> int:
    """Return the bytes that one device sends in one round at most, headers and small messages left out."""
    if document.task.round.mode is Mode.TRUSTED:
        return sealed_length(sealed_spec(document, bytes(32)))
    return max(sum(payload_length(spec.ring) for spec in sums) for sums in allowed_sums(document, 0))


def _level(descriptor: FederationDescriptor) -> str:
    if descriptor.authority_is_server:
        return (
            "Level T1: the server learns sums only, as long as it follows the protocol; this ends if the organiser, "
            "who also decides which devices are real, enrols fake ones"
        )
    # A stronger claim for a separate authority waits for review (THREATS); until then the same level is shown.
    return (
        "Level T1: the server learns sums only, as long as it follows the protocol and the enrolled devices are real; "
        "devices are admitted by an authority apart from the server, so fake ones need that authority or its invites"
    )


def admitted_by(descriptor: FederationDescriptor) -> str:
    """Say who decides which devices belong to a federation: the server itself, or somebody else, known by a key."""
    if descriptor.authority_is_server:
        return "the server itself"
    return f"an authority apart from the server (key {descriptor.authority_key.hex()[:12]}…)"


def _company(task: Task) -> str:
    return "with noise of its own and no figures" if task.privacy else "with example count and losses"


def _hidden(document: TaskDocument, hidden: int) -> list[str]:
    sums = f"it is readable only as a sum: you are hidden among at least {hidden} devices, yours counted"
    task = document.task
    return [sums, *_covered(task), *_unlike(task), *_canary(task), *_domain_losses(task), *_bound(document)]


def _canary(task: Task) -> list[str]:
    if task.canary is None:
        return []
    what = f"the loss on {counted(len(task.canary.rows), 'public row')}, which says how your base class computes"
    hidden = f"only as the mean of all devices of the class in a round, {task.canary.hidden_among} honest ones at least"
    return [f"{what} and nothing of your rows: {hidden}"]


def _domain_losses(task: Task) -> list[str]:
    """What the task's `[fairness]` has a device say of its rows, and behind how many it hides."""
    spec = task.fairness
    if spec is None:
        return []
    lines = []
    if spec.domains:
        hidden = f"only as sums over all devices of a round that have it, {spec.hidden_among} honest ones at least"
        lines.append(f"for each of {counted(len(spec.domains), 'domain')}, rows and loss of yours: {hidden}")
    if spec.rule is not FairRule.ROWS:
        lines.append(
            f"a weight that follows your losses (rule {spec.rule}), readable only inside the sum of all weights"
        )
    return lines


def _domains_in_clear(task: Task) -> list[str]:
    if task.fairness is None or not task.fairness.domains:
        return []
    shown = ", ".join(plain(name) for name in task.fairness.domains[:_SHOWN_DOMAINS])
    more = len(task.fairness.domains) - _SHOWN_DOMAINS
    which = shown + (f" and {more} more" if more > 0 else "")
    return [f"which of these domains your rows have ({which}), to the server and the members of your rounds"]


def _class_in_clear(task: Task) -> list[str]:
    if task.canary is None:
        return []
    return [f"the kind of base class ({' or '.join(task.base.allowed)}), to the server and the members of your rounds"]


def _declared(task: Task) -> list[str]:
    """What a device says of itself at each check-in, for tasks that draw by it."""
    rule = task.round.selection
    seen = ["the server draws rounds by what your last update said: its rows and its loss"] if rule in SEEN else []
    if rule not in DECLARED:
        return seen
    what = "about how long a round takes here, to a factor of two"
    if rule is Selection.STRATIFIED:
        names = plain(", ".join(task.selection.domains))
        what = f"which of these categories more than a little of your rows are in: {names}; and {what}"
    return [*seen, f"at each check-in, so that rounds are drawn by it: {what} (unless you set privacy.declare=false)"]


def _covered(task: Task) -> list[str]:
    if not task.selection.domains:
        return []
    names = plain(", ".join(task.selection.domains))
    return [f"which of these categories more than a little of your rows are in, as counts over the cohort: {names}"]


def _unlike(task: Task) -> list[str]:
    if not task.method.diversity:
        return []
    return ["how long your update is, as a sum over the cohort: it says how unlike the updates of all devices are"]


def _bound(document: TaskDocument) -> list[str]:
    """What the noise bounds, and against whom; nothing where there is none."""
    privacy, rounds = document.task.privacy, document.task.round.rounds
    if privacy is None:
        return []
    planned = planned_epsilon(document)
    weak = " — the task itself says that this protects little" if privacy.accept_weak else ""
    often = f"all {rounds:,} rounds" if rounds > 1 else "its one round"
    promise = f"epsilon {planned:.3g} at delta {privacy.delta:.0e} if you take part in {often}"
    return [f"differential privacy of what you send: {promise}; it bounds what the sums say about you{weak}"]


def _small(weakest: Thresholds) -> list[str]:
    """What a small federation cannot hide, said plainly (PROTOCOL, section 2)."""
    n, s = weakest.members, weakest.min_survivors
    knows = "Every member sees the result and knows its own part"
    lines = [f"{knows}: each of {s} survivors learns the sum of the other {s - 1}"]
    if s == 2:
        lines.append("With two survivors each of them learns the other's update")
    elif n == 3:
        lines.append("In a cohort of three the server together with one device learns the sum of the other two")
    if weakest.hidden_among < _ADVISED:
        lines.append(
            f"A small federation: hidden among {weakest.hidden_among} devices, yours counted; {_ADVISED} or more are "
            "advised outside demos"
        )
    return lines
