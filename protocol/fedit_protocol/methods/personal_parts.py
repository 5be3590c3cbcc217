"""Which of an adapter's tensors a device keeps for itself under a task's method: none, the factors B, or all."""

from fedit_protocol.methods.fedsa import kept_names
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName


def personal_names(document: TaskDocument) -> tuple[str, ...]:
    """Return the names of the tensors of a device's personal adapter that never leave it, in layout order."""
    match document.task.method.name:
        case MethodName.FEDSA:
            return kept_names(document)
        case MethodName.DITTO:
            return tuple(tensor.name for tensor in document.layout.tensors)
        case _:
            return ()
