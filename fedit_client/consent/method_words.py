"""What a task's method trains on the device and sends from it, in the owner's words."""

from fedit_protocol.task import Task
from fedit_protocol.task_tables import MethodName


def trained_words(task: Task, modules: str) -> str:
    """Return what is trained, and what of it is sent where that is not the adapter itself."""
    rank, method = task.adapter.rank, task.method
    adapter = f"LoRA rank {rank} on {modules}"
    match method.name:
        case MethodName.FED_SB:
            return f"{adapter}, of which one core of {rank} × {rank} numbers a layer is trained and sent"
        case MethodName.RAVAN:
            inner = rank // method.heads
            return f"{adapter}, of which {method.heads} cores of {inner} × {inner} numbers a layer are trained and sent"
        case MethodName.FEDKSEED:
            way = f"how far it moves along {method.seeds:,} public directions is sent"
            return f"{adapter}, by forward passes alone, without gradients; {way}"
        case MethodName.FLORA | MethodName.FLEXLORA | MethodName.FEDEX_LORA:
            return f"{adapter}; the server makes its step of each device's own update, which no sum would be enough for"
        case _:
            return adapter
