"""From what travels to what PEFT loads: the same vector for most methods, built from few numbers for some."""

from typing import Protocol, runtime_checkable

from fedit_protocol.adapter import Vector
from fedit_protocol.methods import method_of
from fedit_protocol.task import TaskDocument


@runtime_checkable
class BuildsAdapter(Protocol):
    """A method whose global state is not the LoRA adapter itself (`state_layout`)."""

    def build(self, document: TaskDocument, state: Vector) -> Vector:
        """Return the LoRA adapter of a state, float32 (document.built.size,); every machine builds the same one."""
        ...


def built_adapter(document: TaskDocument, vector: Vector) -> Vector:
    """Return the LoRA adapter, float32 (document.built.size,), of a version (document.layout.size,)."""
    method = method_of(document)
    return method.build(document, vector) if isinstance(method, BuildsAdapter) else vector
