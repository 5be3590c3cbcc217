"""Before anything is promised: is the training stack here, does the task fit this machine, where is its base."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fedit_client.base.manifest import told_apart
from fedit_client.base.model import OtherBaseError, resolve_base, to_fetch
from fedit_client.config import ClientConfig, DeviceSettings
from fedit_client.data import Record
from fedit_client.hardware.base_class import ClassWishes, choose_class
from fedit_client.hardware.device import DevicePlan, Machine, plan
from fedit_client.hardware.estimate import estimated
from fedit_client.hardware.fit import Fit, fit_of
from fedit_client.hardware.history import MachineHistory
from fedit_client.hardware.optimizers import usable
from fedit_client.hardware.runtime import check_stack, version_in
from fedit_client.hardware.sharing import shared_by
from fedit_client.manners.caps import check_disk, check_network, within_memory
from fedit_client.manners.facts import is_metered, used_gb
from fedit_client.membership.joined import Membership
from fedit_client.membership.trust import Federation, ServerAddress
from fedit_protocol.errors import ConsentError, DeviceError, FeditError, TransportError
from fedit_protocol.ids import Digest
from fedit_protocol.limits import Limits
from fedit_protocol.task import Quantization, TaskDocument

Recognise = Callable[[], Awaitable[tuple[Federation, ServerAddress]]]
"""Says which server there is to ask, and where."""

_OWN_TRAINER: Final = "the program's own trainer decides"


def check_training_stack(settings: DeviceSettings | None = None) -> None:
    """Raise DeviceError H005, H007 if the interpreter that trains cannot; looks, but imports nothing."""
    check_stack(settings.python if settings else None)


def choose_device(
    document: TaskDocument,
    machine: Machine,
    settings: DeviceSettings,
    joined: Membership | None,
    allowed: Collection[Quantization] = tuple(Quantization),
) -> DevicePlan:
    """Return how the task will be trained here: the settings of now come before what was said when joining.

    `allowed` are the base classes of the owner's limits. Raises DeviceError H002, H003, H070, H071.
    """
    if settings.python is not None:
        machine = replace(machine, torch=version_in("torch", settings.python))
    prefer = joined.device if joined and settings.prefer == "auto" else settings.prefer
    threads = settings.threads or (joined.threads if joined else None)
    wishes = ClassWishes(allowed, _wanted_class(settings), joined.base_class if joined else None)
    chosen = choose_class(
        document, wishes, lambda held: plan(document, machine, prefer, threads, settings.max_tokens, held)
    )
    _, told = usable(document.task.training.optimizer, chosen.device)
    chosen = replace(chosen, reason=f"{chosen.reason}; {told}") if told else chosen
    chosen = replace(chosen, python=str(settings.python or ""))
    return shared_by(chosen, machine, settings.processes)


def _wanted_class(settings: DeviceSettings) -> Quantization | None:
    return None if settings.base_class == "auto" else Quantization(settings.base_class)


def cpu_needs_a_yes(chosen: DevicePlan) -> FeditError:
    """The error of a device that would have to train on its CPU, although nobody has asked for that: never silently.

    H001 where a GPU is there and cannot be used, else A006.
    """
    if chosen.cpu_fix:
        return DeviceError(f"the GPU of this machine cannot be used: {chosen.reason}", code="H001", fix=chosen.cpu_fix)
    return ConsentError(f"training on the CPU needs a yes: {chosen.reason}", code="A006",
                        fix="fedit-client set device.prefer=cpu", again="--device cpu")  # fmt: skip


def may_use_cpu(chosen: DevicePlan, machine: Machine, joined: Membership) -> bool:
    """Say whether a device may train as planned: a yes was given, or it joined before that was asked for."""
    return not chosen.needs_cpu_consent or (joined.trains_on is None and not machine.gpus)


def unplanned(document: TaskDocument, settings: DeviceSettings | None = None) -> DevicePlan:
    """The plan handed to a trainer that the embedding program brings: it decides for itself."""
    return DevicePlan(
        device="cpu",
        threads=1,
        quantization=(_wanted_class(settings) if settings else None) or document.task.base.allowed[0],
        compute_dtype="float32",
        reason=_OWN_TRAINER,
        estimated_bytes=0,
        available_bytes=0,
        class_reason=_OWN_TRAINER,
    )


@dataclass(frozen=True)
class Preparation:
    """One task on this machine, under the owner's settings."""

    config: ClientConfig
    document: TaskDocument
    joined: Membership | None = None

    @property
    def model(self) -> str | None:
        """Where the base lies, if not where the task says."""
        return self.config.model or (self.joined.model if self.joined else None)

    def plan(self, machine: Machine) -> DevicePlan:
        """Return how the task will be trained, on the rung that this machine took before.

        Raises DeviceError, CappedError P003.
        """

        def choose(left: Machine) -> DevicePlan:
            allowed = self.config.limits.quantizations
            return choose_device(self.document, left, self.config.device, self.joined, allowed)

        chosen = within_memory(machine, self.config.polite, choose)
        return estimated(self.document, self.history.lowered(self.document, chosen))

    @staticmethod
    def seen(chosen: DevicePlan | None, before: Membership | None) -> dict[str, Any]:
        """Return what a membership says of the device that its owner has seen; as `before` where nobody looked."""
        if chosen is None:
            known = {"trains_on": before.trains_on, "base_class": before.base_class} if before else {}
            return {**known, "trains_on": known.get("trains_on") or ""}
        return {"trains_on": chosen.kind, "base_class": chosen.quantization if chosen.class_reason else None}

    def fit(self, machine: Machine, records: Iterable[Record] = ()) -> Fit:
        """Return what the task means for this machine; fetches nothing. Raises DeviceError H002, H003."""
        base = self.document.task.base
        fetch = to_fetch(self.model or base.model, base.revision, self.config.paths.cache, self.size)
        return fit_of(self.document, self.plan(machine), machine, fetch, self.history, records)

    @property
    def size(self) -> int:
        """Bytes of the base: stated, or two for each of its numbers in documents from before."""
        return self.document.base_bytes or 2 * (self.document.linear_parameters + self.document.other_parameters)

    @property
    def history(self) -> MachineHistory:
        """What this machine has shown before."""
        return MachineHistory(self.config.paths.machine_file)

    async def base(self, say: Callable[[str], None], recognise: Recognise | None = None) -> Path:
        """Return the base's folder, fetched if it must be; raises ModelError, CappedError P004, P005.

        Where other files lie there than the task's, its manifest says which; `recognise` is for whoever is no member.
        """
        config, stated, paths = self.config, self.document.task.base, self.config.paths
        fetch = await asyncio.to_thread(to_fetch, self.model or stated.model, stated.revision, paths.cache, self.size)
        used = await asyncio.to_thread(used_gb, (paths.data, paths.state, paths.cache))
        check_disk(used, fetch.size, config.polite)
        await asyncio.to_thread(check_network, fetch.size, config.polite, is_metered)
        try:
            return await find_base(self.document, self.model, config.paths.cache, config.limits, say)
        except OtherBaseError as error:
            raise await self._told_apart(error, recognise) from None

    async def _told_apart(self, error: OtherBaseError, recognise: Recognise | None) -> FeditError:
        joined, digest = self.joined, Digest(self.document.task.base.digest)
        try:
            if joined is not None:
                federation, address = joined.federation, joined.address(self.config.network.no_proxy)
            elif recognise is not None:
                federation, address = await recognise()
            else:
                return error
        except TransportError:  # nobody to ask
            return error
        async with address.transport(federation.tls()) as transport:
            return await told_apart(error, digest, transport, self.config.paths.cache)


async def find_base(
    document: TaskDocument, model: str | None, cache: Path, limits: Limits, say: Callable[[str], None]
) -> Path:
    """Return the folder of the task's base, its digest checked; raises ModelError like `resolve_base`."""
    base = document.task.base
    return await asyncio.to_thread(
        lambda: resolve_base(
            model or base.model,
            base.revision,
            cache,
            most_bytes=limits.max_base_bytes,
            expected=base.digest or None,
            say=say,
        )
    )


def device_kind(machine: Machine) -> str:
    """The coarse kind that a check-in carries: `cpu`, `nvidia-8gb`, or `intel-gpu` where its memory is not known."""
    if not machine.gpus:
        return "cpu"
    largest = max(machine.gpus, key=lambda gpu: gpu.total_bytes)
    size = f"{round(largest.total_bytes / 2**30)}gb" if largest.total_bytes else "gpu"
    return f"{largest.vendor}-{size}"
