"""What `fit` and `prefetch` do: look at the joined task, or at a base that was named, on this machine."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedit_client.base.look import imagined
from fedit_client.base.model import is_hub_id, local_base, resolve_base, to_fetch
from fedit_client.config import ClientConfig
from fedit_client.data import Record
from fedit_client.data.remembered import load_sources
from fedit_client.hardware.fit import Fit
from fedit_client.hardware.machine import Machine
from fedit_client.membership.joined import load_membership, require_membership
from fedit_client.records.contacts import note_hub
from fedit_client.rounds.preparation import Preparation
from fedit_protocol.errors import DataError


def fit_here(config: ClientConfig, model: str | None) -> Fit:
    """Return what the joined task, or a task on the named base, means for this machine.

    Raises MembershipError J001 without either, ModelError M001, M003, M009, DeviceError H002, H003.
    """
    if model is None:
        joined = require_membership(config.paths.membership_file)
        return Preparation(config, joined.task_document, joined).fit(Machine.here(), _rows(config))
    before = load_membership(config.paths.membership_file)
    if is_hub_id(model) and not Path(model).is_dir():
        note_hub(config.paths.cache)
    document = imagined(model, before.task_document if before else None)
    return Preparation(config.model_copy(update={"model": model}), document, before).fit(Machine.here())


async def fetch_base(config: ClientConfig, say: Callable[[str], None]) -> tuple[Path, bool]:
    """Return the folder of the joined task's base, or of the model that the settings name where nothing was joined, and
    whether it had to be fetched. Raises MembershipError J001 without either, ModelError M001 to M008.
    """
    joined = load_membership(config.paths.membership_file)
    if joined is None and config.model:
        return await _fetch_named(config, config.model, say)
    joined = joined or require_membership(config.paths.membership_file)
    ready = Preparation(config, joined.task_document, joined)
    base = joined.task_document.task.base
    fetch = await asyncio.to_thread(to_fetch, ready.model or base.model, base.revision, config.paths.cache, ready.size)
    fetch.check()
    if fetch.place is None:
        say(fetch.words())
    return await ready.base(say), fetch.place is None


async def _fetch_named(config: ClientConfig, model: str, say: Callable[[str], None]) -> tuple[Path, bool]:
    cache, most = config.paths.cache, config.limits.max_base_bytes
    before = await asyncio.to_thread(local_base, model, "", cache)
    folder = await asyncio.to_thread(lambda: resolve_base(model, "", cache, most_bytes=most, say=say))
    return folder, before is None


def _rows(config: ClientConfig) -> tuple[Record, ...]:
    """The rows that a round would use; files that cannot be read are another command's to complain about."""
    found: list[Record] = []
    for source in load_sources(config.paths):
        try:
            found.extend([] if source.is_hub else replace(source, on_error="skip").read().records)
        except DataError:
            continue
    return tuple(found)
