"""Which base class a device takes of those that a task lists: the first that runs here, and no other one in silence."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from fedit_client.hardware.plan import DevicePlan
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Quantization, TaskDocument

Attempt = Callable[[Quantization], DevicePlan]
"""Plans the task in one class; raises DeviceError H002, H003."""


@dataclass(frozen=True)
class ClassWishes:
    """What the owner has said of base classes: the limits, a setting, and the class that was shown when joining."""

    allowed: Collection[Quantization] = tuple(Quantization)
    wanted: Quantization | None = None
    joined: Quantization | None = None


def choose_class(document: TaskDocument, wishes: ClassWishes, attempt: Attempt) -> DevicePlan:
    """Return the plan in the class that the owner wants or has seen, else in the first of the task's that runs here.

    Raises DeviceError: H070 the class of the owner's setting is not one of the task's and the limits'; H071 the class
    that the owner has seen does not run any more, and another one would, after a yes; else what `attempt` raises.
    """
    listed = document.task.base.allowed
    usable = tuple(name for name in listed if name in wishes.allowed) or listed
    if wishes.wanted is not None:
        if wishes.wanted not in usable:
            raise DeviceError(f"this device is set to base class {wishes.wanted}, but {_offered(listed, usable)}",
                              code="H070", where="setting device.base_class",
                              fix="fedit-client set device.base_class=auto")  # fmt: skip
        return _told(attempt(wishes.wanted), usable, "your setting device.base_class")
    if len(listed) == 1:
        return attempt(listed[0])
    if wishes.joined in usable:
        return _as_joined(wishes.joined, usable, attempt)
    return _first(listed, usable, attempt)


def another_class(reason: str, base_class: Quantization, where: str = "") -> DeviceError:
    """The error of a device that could go on in another class of the task, which needs its owner's yes."""
    return DeviceError(f"{reason}; the task also lists base class {base_class}, which would fit, if you agree",
                       code="H071", where=where, fix=f"fedit-client set device.base_class={base_class}")  # fmt: skip


def _as_joined(joined: Quantization, usable: tuple[Quantization, ...], attempt: Attempt) -> DevicePlan:
    try:
        return _told(attempt(joined), usable, "the class that you joined with")
    except DeviceError as error:
        for other in usable:
            if other is not joined and _runs(other, attempt):
                raise another_class(str(error), other, error.where or "") from error
        raise


def _runs(base_class: Quantization, attempt: Attempt) -> bool:
    try:
        return not attempt(base_class).needs_cpu_consent
    except DeviceError:
        return False


def _first(listed: tuple[Quantization, ...], usable: tuple[Quantization, ...], attempt: Attempt) -> DevicePlan:
    """Try the classes in order; one that would leave a GPU unused comes after all that use it."""
    refused = [f"{name} is not in your policy" for name in listed if name not in usable]
    on_cpu: list[str] = []
    last: DeviceError | None = None
    for base_class in usable:
        try:
            plan = attempt(base_class)
        except DeviceError as error:
            refused.append(f"{base_class}: {error}")
            last = error
            continue
        if not plan.needs_cpu_consent:
            return _told(plan, usable, _why(base_class, listed, [*refused, *on_cpu]))
        on_cpu.append(f"{base_class} runs on the CPU only")
        last = None
    if last is not None and not on_cpu:
        raise DeviceError("no base class of the task runs here: " + "; ".join(refused), code=last.code,
                          where=last.where, fix=last.fix)  # fmt: skip
    first = next(name for name in usable if f"{name} runs on the CPU only" in on_cpu)
    return _told(attempt(first), usable, _why(first, listed, refused))


def _why(taken: Quantization, listed: tuple[Quantization, ...], passed_over: list[str]) -> str:
    earlier = listed[: listed.index(taken)]
    reasons = [reason for reason in passed_over if reason.startswith(tuple(str(name) for name in earlier))]
    return "; ".join(reasons) if reasons else "the first that the task lists"


def _told(plan: DevicePlan, usable: tuple[Quantization, ...], why: str) -> DevicePlan:
    others = tuple(name for name in usable if name is not plan.quantization)
    told = replace(plan, class_reason=why, other_classes=others)
    return replace(told, reason=f"{plan.reason}; base in {told.class_words}")


def _offered(listed: tuple[Quantization, ...], usable: tuple[Quantization, ...]) -> str:
    if listed == usable:
        return f"the task lists {' and '.join(listed)}"
    return f"of the task's {' and '.join(listed)} your policy allows {' and '.join(usable)}"
