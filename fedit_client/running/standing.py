"""Where this device stands, from its own files: nothing is asked of the server."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedit_client.adapters.editions import own_losses
from fedit_client.adapters.kept import newest_adapter
from fedit_client.config import ClientConfig
from fedit_client.consent.agreements import open_question
from fedit_client.consent.policy import differing, policy_of, words
from fedit_client.consent.terms import admitted_by
from fedit_client.data.remembered import load_sources
from fedit_client.evaluation.own_losses import own_line
from fedit_client.home.lock import is_held
from fedit_client.manners.control import read_now, read_wish
from fedit_client.membership.joined import Membership, load_membership
from fedit_client.network.patience import utc_now
from fedit_client.records.journal import Journal
from fedit_client.running.doing import doing_lines
from fedit_protocol.accounting import epsilon
from fedit_protocol.peft_folder import OwnLoss
from fedit_protocol.task import Mode, Task

WHAT_NOW: Final = "use the adapter: fedit-client chat · eval · export --to gguf; then fedit-client leave"
"""For a task that is over."""


@dataclass(frozen=True)
class Standing:
    """What `status` says; `None` where there is nothing to say."""

    joined: bool
    running: bool
    server: str | None = None
    federation: str | None = None
    pin: str | None = None
    pinned_by: str | None = None
    authority: str | None = None
    """Who admits devices, in words."""
    task: str | None = None
    title: str | None = None
    mode: str | None = None
    data: tuple[str, ...] = ()
    device: str | None = None
    base_class: str | None = None
    """How the base is held; None while nothing is decided."""
    base_class_reason: str | None = None
    rounds: int = 0
    epsilon: float | None = None
    """What this device's noisy uploads bound so far, for the task's delta; None without noise."""
    last_round: int | None = None
    """The newest one taken part in, whatever became of it."""
    rounds_planned: int = 0
    unsettled_round: int | None = None
    """A round taken part in whose result was not seen yet."""
    ended_after: int | None = None
    """The last round of a task that is over."""
    adapter_version: int | None = None
    adapter: str | None = None
    own_losses: dict[int, OwnLoss | None] = field(default_factory=dict)
    """What the versions on this device do on its own held-out rows; None: not measured."""
    agreement: str | None = None
    """What the owner has to decide before anything is trained; None while there is a yes to the joined task."""
    policy: str | None = None
    """The file that holds the owner's limits."""
    limits: dict[str, Any] = field(default_factory=dict)
    """Those that differ from the default."""
    refusal: str | None = None
    """Why the limits refuse the joined task, None where it keeps to them."""
    fix: str | None = None
    """What lifts the refusal."""
    doing: tuple[str, ...] = ()
    """What it does at this moment, or why it does not, in words."""
    now: dict[str, Any] | None = None
    """The same as fields (control.Now); None while no client runs."""

    def lines(self) -> list[str]:
        """The same in words."""
        if not self.joined:
            return ["not joined", "  fedit-client join --server 'fedit://…' --data rows.jsonl", self._policy_line()]
        adapter = f"version {self.adapter_version} in {self.adapter}" if self.adapter else "none yet"
        last = f"; round {self.unsettled_round} has no result here yet" if self.unsettled_round else ""
        return [
            f"task        {self.title} ({self.task}), {self._mode_text()}",
            *([] if self.agreement is None else [f"agreement   {self.agreement}", "  fix: fedit-client consent diff"]),
            f"federation  {self.federation or 'unnamed'} at {self.server}",
            f"identity    {(self.pin or '')[:19]}…, pinned by {self.pinned_by}",
            f"admission   by {self.authority}",
            *(f"{'' if place else 'client':<12}{line}" for place, line in enumerate(self._doing())),
            f"rounds      {self.rounds:,} of {self.rounds_planned:,} committed with this device{last}",
            *([] if self.epsilon is None else [f"privacy     epsilon {self.epsilon:.3g} given so far"]),
            f"adapter     {adapter}",
            *([f"own rows    {told}"] if (told := own_line(self.own_losses)) else []),
            f"data        {', '.join(self.data) or 'none remembered'}",
            f"device      {self.device}" + self._class_text(),
            self._policy_line(),
            *self._refusal_lines(),
        ]

    def _doing(self) -> tuple[str, ...]:
        if self.running or self.ended_after is None:
            return self.doing
        after = f"the task has ended after round {self.ended_after}; there is nothing left to take part in"
        return (after, WHAT_NOW) if self.adapter else (after,)

    def _class_text(self) -> str:
        return f", base in {self.base_class} ({self.base_class_reason})" if self.base_class else ""

    def _mode_text(self) -> str:
        if self.mode != Mode.TRUSTED:
            return str(self.mode)
        return "trusted: weaker, the server sees each update of this device (level T0)"

    def _refusal_lines(self) -> list[str]:
        if self.refusal is None:
            return []
        return [f"refused     the task does not keep to the policy: {self.refusal}", f"  fix: {self.fix or 'none'}"]

    def _policy_line(self) -> str:
        own = ", ".join(f"{name} {words(name, value)}" for name, value in self.limits.items())
        return f"policy      {own or 'the default limits'}, in {self.policy}: fedit-client policy show"


def standing(config: ClientConfig) -> Standing:
    """Read this device's files; raises StorageError if they are damaged."""
    paths = config.paths
    membership, running, now = load_membership(paths.membership_file), is_held(paths.lock_file), read_now(paths)
    if membership is None:
        return Standing(False, running, policy=str(paths.settings_file), limits=differing(config))
    task = membership.task_document.task
    federation = membership.federation
    journal = _journal(paths.journal / federation.descriptor.federation_id / task.id)
    refusal = policy_of(config).refusal
    newest = newest_adapter(paths.adapters, task.id)
    return Standing(
        joined=True,
        running=running,
        doing=tuple(doing_lines(now, read_wish(paths), utc_now())),
        now=None if now is None else now.model_dump(mode="json"),
        server=server_text(membership),
        federation=federation.descriptor.name,
        pin=federation.pin,
        pinned_by=membership.pinned_by.value,
        authority=admitted_by(federation.descriptor),
        task=membership.consent,
        title=task.title,
        mode=task.round.mode.value,
        data=tuple(source.place for source in load_sources(paths)),
        device=membership.device,
        **_base_class(config, membership),
        rounds=journal.rounds if journal else 0,
        epsilon=_given(journal, task),
        rounds_planned=task.round.rounds,
        unsettled_round=journal.unsettled.round_no if journal and journal.unsettled else None,
        ended_after=journal.ended[1] if journal and journal.ended and journal.ended[0] == task.version else None,
        last_round=journal.last.round_no if journal and journal.last else None,
        adapter_version=newest[0] if newest else None,
        adapter=str(newest[1]) if newest else None,
        own_losses=own_losses(paths.adapters, task.id),
        agreement=open_question(paths, membership),
        policy=str(paths.settings_file),
        limits=differing(config),
        refusal=None if refusal is None else str(refusal),
        fix=None if refusal is None else refusal.fix,
    )


def _given(journal: Journal | None, task: Task) -> float | None:
    if task.privacy is None:
        return None
    return epsilon(journal.last.noisy if journal and journal.last else (), task.privacy.delta)


def _base_class(config: ClientConfig, membership: Membership) -> dict[str, str | None]:
    """How the next round holds the base, and why, as far as files say: the machine itself is not looked at."""
    listed, wanted, seen = membership.task_document.task.base.allowed, config.device.base_class, membership.base_class
    if wanted != "auto":
        name, why = str(wanted), "your setting device.base_class"
    elif len(listed) == 1:
        name, why = str(listed[0]), "the task's only one"
    elif seen in listed:
        name, why = str(seen), "the class that you joined with"
    else:
        return {"base_class": None, "base_class_reason": None}
    return {"base_class": name, "base_class_reason": why}


def server_text(membership: Membership) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    host = f"[{membership.host}]" if ":" in membership.host else membership.host
    return f"{host}:{membership.port}"


def _journal(folder: Path) -> Journal | None:
    return Journal(folder) if folder.exists() else None
