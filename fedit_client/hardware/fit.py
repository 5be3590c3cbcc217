"""Will it fit, how long, how many MB: what joining a task would mean for this machine, before anything is fetched."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fedit_client.base.fetch import Fetch
from fedit_client.consent.terms import size_text, upload_bytes
from fedit_client.data import Record
from fedit_client.hardware.estimate import Estimate, estimate
from fedit_client.hardware.history import MachineHistory, recipe_of
from fedit_client.hardware.machine import Machine
from fedit_client.hardware.plan import DevicePlan
from fedit_client.hardware.speed import RoundTime, Rows, probe_flops, round_time
from fedit_protocol.task import TaskDocument

_CHARACTERS_PER_TOKEN = 4.0
_TEMPLATE_TOKENS = 16
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Fit:
    """The answer, in bytes and seconds. `measured` says that the memory was seen here and not estimated."""

    plan: DevicePlan
    parts: Estimate
    memory_bytes: int
    measured: bool
    fetch: Fetch
    up_bytes: int
    down_bytes: int
    time: RoundTime

    def lines(self) -> list[str]:
        """The same in words."""
        seen = "seen here before" if self.measured else "estimated"
        free = self.plan.available_bytes
        of = f" of {_gb(free)} free" if free else ""
        return [
            f"device     {self.plan.reason}",
            f"memory     about {_gb(self.memory_bytes)}{of}, {seen}",
            f"time       {self.time_words()}",
            f"traffic    {size_text(self.up_bytes)} up, {size_text(self.down_bytes)} down a round",
            f"base       {self.fetch.words()}",
            f"class      {self.plan.class_words}",
        ]

    def short(self) -> str:
        """The answer in one line, for `join`."""
        free = f" of {_gb(self.plan.available_bytes)} free" if self.plan.available_bytes else ""
        return (
            f"fits: about {_gb(self.memory_bytes)}{free} · {self.time_words()} · "
            f"{size_text(self.up_bytes)} up, {size_text(self.down_bytes)} down"
        )

    def time_words(self) -> str:
        """Minutes a round, with what they rest on."""
        seconds = self.time.seconds
        told = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f"about {told} a round ({self.time.basis})"

    def as_data(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "device": self.plan.device,
            "kind": self.plan.kind,
            "name": self.plan.name,
            "reason": self.plan.reason,
            "base_class": str(self.plan.quantization),
            "base_class_reason": self.plan.class_reason or None,
            "memory_bytes": self.memory_bytes,
            "memory_free_bytes": self.plan.available_bytes,
            "memory_parts": vars(self.parts),
            "measured": self.measured,
            "micro_batch_size": self.plan.micro_batch_size,
            "checkpointing": self.plan.checkpointing,
            "round_seconds": round(self.time.seconds, 1),
            "round_seconds_guessed": self.time.guessed,
            "upload_bytes": self.up_bytes,
            "download_bytes": self.down_bytes,
            "base_download_bytes": self.fetch.size,
            "base_disk_needed_bytes": self.fetch.disk_needed,
            "disk_free_bytes": self.fetch.disk_free,
            "base": str(self.fetch.place) if self.fetch.place else None,
        }


def fit_of(
    document: TaskDocument,
    plan: DevicePlan,
    machine: Machine,
    fetch: Fetch,
    history: MachineHistory,
    records: Iterable[Record] = (),
) -> Fit:
    """Return what a task means for a machine under a plan; measures this machine's speed for 0.15 s where it must."""
    run = history.run_of(document, plan)
    same = run is not None and run.recipe == recipe_of(plan) and run.peak_bytes > 0
    parts = estimate(document, plan)
    flops = probe_flops() if run is None and plan.kind == "cpu" else 0.0
    return Fit(
        plan=plan,
        parts=parts,
        memory_bytes=run.peak_bytes if run and same else parts.total,
        measured=same,
        fetch=fetch,
        up_bytes=upload_bytes(document),
        down_bytes=document.layout.size * _FLOAT_BYTES,
        time=round_time(document, plan, machine, rows_of(records), run, flops),
    )


def rows_of(records: Iterable[Record]) -> Rows | None:
    """Return how many rows there are and about how long they are, from their characters; None without rows."""
    lengths = [sum(len(message.content) for message in record.messages) for record in records]
    if not lengths:
        return None
    return Rows(len(lengths), sum(lengths) / len(lengths) / _CHARACTERS_PER_TOKEN + _TEMPLATE_TOKENS)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
