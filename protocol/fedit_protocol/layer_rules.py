"""What a method asks of the layers of a base: checked when a task meets its base, not in the rounds that follow."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.errors import ConfigError
from fedit_protocol.task_tables import MethodName

if TYPE_CHECKING:
    from fedit_protocol.task import Task

_A: Final = ".lora_A.weight"
_B: Final = ".lora_B.weight"


def check_layers(task: "Task", lora: AdapterLayout) -> None:
    """Raise ConfigError if a layer is too narrow for the method: C023 for its sketch, C041 for its rows of A."""
    match task.method.name:
        case MethodName.FEDIT_RS:
            _check_sketch(task, {path: outputs for path, outputs, _ in _sizes(lora)}, "outputs")
        case MethodName.FEDIT_RS1:
            _check_sketch(task, {path: min(sides) for path, *sides in _sizes(lora)}, "numbers on the shorter side")
        case MethodName.FEDSVD:
            path, inputs = min(((path, inputs) for path, _, inputs in _sizes(lora)), key=lambda found: found[1])
            if inputs < task.adapter.rank:
                raise ConfigError(
                    f"fedsvd cannot make {task.adapter.rank} orthonormal rows of {inputs} inputs in {path}",
                    code="C041",
                    where=task.label,
                    fix=f"set adapter.rank to {inputs} at most, or take ffa_lora",
                )


def _check_sketch(task: "Task", sides: dict[str, int], what: str) -> None:
    path = min(sides, key=lambda each: sides[each])
    stated, side = task.method.sketch_rank, sides[path]
    if (stated or task.adapter.rank) <= side:
        return
    wide = f"method.sketch_rank = {stated}" if stated else f"a sketch as wide as adapter.rank = {task.adapter.rank}"
    raise ConfigError(
        f"{wide} exceeds the {side} {what} of {path}",
        code="C023",
        where=task.label,
        fix=f"set method.sketch_rank = {side} or less",
    )


def _sizes(lora: AdapterLayout) -> Iterator[tuple[str, int, int]]:
    """Yield each adapted layer with how many outputs and inputs it has."""
    shapes = {tensor.name: tensor.shape for tensor in lora.tensors}
    for name, shape in shapes.items():
        if name.endswith(_A):
            path = name.removesuffix(_A)
            yield path, shapes[path + _B][0], shape[1]
