"""Which tensors a device keeps for itself under a task's method: none, the factors B, or an adapter of its own."""

from fedit_protocol.methods.fedalt import mixer_shapes
from fedit_protocol.methods.fedsa import kept_names
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName


def personal_shapes(document: TaskDocument) -> dict[str, tuple[int, ...]]:
    """Return name → shape of the tensors of a device's personal adapter that never leave it."""
    shapes = {tensor.name: tensor.shape for tensor in document.layout.tensors}
    match document.task.method.name:
        case MethodName.FEDSA:
            return {name: shapes[name] for name in kept_names(document)}
        case MethodName.DITTO:
            return shapes
        case MethodName.FEDALT:
            return shapes | mixer_shapes(document)
        case _:
            return {}


def is_adapter(document: TaskDocument) -> bool:
    """Say whether the personal part, with the shared one, is an adapter as PEFT loads them; a mixture is none."""
    return bool(personal_shapes(document)) and document.task.method.name is not MethodName.FEDALT
