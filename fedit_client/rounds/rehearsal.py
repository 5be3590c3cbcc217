"""A dry run: train one round's work on the real rows and build the upload that would leave, and send nothing."""

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.numpy import save

from fedit_client.adapters.kept import TENSORS, build, newest_adapter, read_state, start_of, travelled
from fedit_client.config import ClientConfig
from fedit_client.home.durable import make_private, write_atomic
from fedit_client.records.outbox import Occasion, OutboxEntry, outbox_of
from fedit_client.records.payloads import Payload, decode_sealed, decode_words, payload_lines
from fedit_client.rounds.contribution import contribution
from fedit_client.rounds.engagement import LocalWork
from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.request import ScoresCanary
from fedit_protocol.adapter import first_adapter
from fedit_protocol.encoding import digest_of
from fedit_protocol.methods import RoundStart
from fedit_protocol.metrics import CanaryLoss
from fedit_protocol.peft_folder import FACTORS
from fedit_protocol.round_plan import sent_layout, sum_specs
from fedit_protocol.secagg.noisy_update import encode_noisy
from fedit_protocol.secagg.quantize import encode_update
from fedit_protocol.secagg.ring import client_variance, cohort_rules
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode, Quantization, TaskDocument

_SEED_BYTES: Final = 32
Say = Callable[[str], None]


@dataclass(frozen=True)
class DryRun:
    """What a round of this device would send; `entry` is its place in the outbox, None where the owner wants none."""

    payload: Payload
    result: LocalResult
    adapter_version: int
    entry: OutboxEntry | None

    def lines(self) -> list[str]:
        """The same in words."""
        hidden = {
            Mode.MASKED: "under masks: bytes as many as these, which look random without the masks of all the others",
            Mode.TRUSTED: "sealed to the server, which would read exactly this",
        }
        kept = f"fedit-client outbox show {self.entry.number}" if self.entry else "not kept (privacy.outbox = false)"
        return [
            f"one round's work on adapter version {self.adapter_version}; nothing was sent",
            f"it would leave {hidden[self.payload.mode]}",
            *payload_lines(self.payload),
            f"all of it: {kept}",
        ]

    def as_data(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "sent": False,
            "adapter_version": self.adapter_version,
            "outbox": self.entry.number if self.entry else None,
            "payload": self.payload.as_data(),
        }


async def rehearse(document: TaskDocument, work: LocalWork, config: ClientConfig, say: Say) -> DryRun:
    """Train on the newest adapter that is here, else on version 0, and return what would be sent."""
    make_private(config.paths.cache)
    with tempfile.TemporaryDirectory(prefix="dry-run-", dir=config.paths.cache) as folder:
        version, adapter = await asyncio.to_thread(_adapter, document, config, Path(folder))
        request = TrainingRequest(
            document=document,
            base=work.base,
            global_adapter=adapter,
            records=work.records,
            seed=secrets.token_bytes(_SEED_BYTES),
            plan=work.plan,
            split_seed=work.split_seed,
            canary=isinstance(work.trainer, ScoresCanary) and work.trainer.scores_canary,
            version=version,
        )
        result = await work.trainer.train(request, _teller(say))
        vector = await asyncio.to_thread(lambda: document.layout.flatten(read_state(travelled(adapter.parent))))
        # The public randomness of a sketch comes from the round's own context, so here from one of no round.
        start = RoundStart(document, version, vector)
        payload = await asyncio.to_thread(_payload, result, start, work.plan.quantization)
        outbox = outbox_of(config)
        entry = None
        if outbox is not None:
            about = Occasion(
                purpose="a dry run: what a round would send",
                task=document.task.label,
                task_digest=document.digest,
                adapter_version=version,
                adapter_digest=digest_of(travelled(adapter.parent).read_bytes()),
            )
            entry = await asyncio.to_thread(outbox.keep, payload, about, None)
    return DryRun(payload, result, version, entry)


def _adapter(document: TaskDocument, config: ClientConfig, folder: Path) -> tuple[int, Path]:
    newest = newest_adapter(config.paths.adapters, document.task.id)
    if newest is not None:
        return newest[0], start_of(newest[1], document)
    path = folder / (TENSORS if document.lora is None else FACTORS)
    vector = first_adapter(document.layout, document.task.adapter.seed)
    write_atomic(path, save(document.layout.unflatten(vector), metadata={"format": "pt"}))
    if document.lora is not None:
        build(path, folder / TENSORS, document)
    return 0, folder / TENSORS


def _payload(result: LocalResult, start: RoundStart, held: Quantization) -> Payload:
    """Encode as a round would: with this device's rounding, weight, figures, and its part of the noise."""
    document = start.document
    task, made = document.task, contribution(result, start)
    message, weight, report = made.message, made.weight, made.report
    if task.round.mode is Mode.TRUSTED:
        return decode_sealed(message, weight, report, document, start.version)
    ring = sum_specs(document, start.version, start.public)[0].ring
    canary = None if not ring.canary or result.canary_loss is None else CanaryLoss(held, result.canary_loss)
    seeds = secrets.token_bytes(_SEED_BYTES), secrets.token_bytes(_SEED_BYTES)
    if ring.noise is None:
        words = encode_update(message, weight, report, ring, seeds[0], canary)
    else:
        least = Thresholds.of(task.round.cohort_min, cohort_rules(task)).hidden_among
        words = encode_noisy(message, ring, client_variance(ring, least), seeds)
    return decode_words(words, ring, sent_layout(document, start.version))


def _teller(say: Say) -> Callable[[TrainingProgress], None]:
    """Say each tenth of training once."""
    told: set[tuple[str, int]] = set()

    def tell(progress: TrainingProgress) -> None:
        tenth = progress.stage, 10 * progress.done // max(progress.total, 1)
        if tenth not in told:
            told.add(tenth)
            loss = f", loss {progress.loss:.3f}" if progress.loss is not None else ""
            say(f"  {progress.stage}: {progress.done} of {progress.total}{loss}")

    return tell
