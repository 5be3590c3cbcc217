"""How a task will be trained on a device: the values that cross to the worker process. No torch here."""

from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from fedit_protocol.task import Batching, Optimizer, Quantization, Task, TaskDocument

DType = Literal["float32", "bfloat16", "float16"]
Kind = Literal["cpu", "cuda", "rocm", "xpu", "mps"]
"""What computes: `rocm` is an AMD card, which torch itself also calls cuda."""

CPU_TOKENS: Final = 1024
"""Tokens that a CPU takes at once where rows are packed: more gain nothing there."""

LOGITS_AT_ONCE: Final = {"cpu": 6_000_000, "gpu": 64_000_000}
"""Logits that exist at once unless a plan says otherwise, as `training/loss.py` has it."""


@dataclass(frozen=True)
class DeviceUse:
    """What a training process takes of its device at a moment; `gpu_share` is the share of the model that lies there.

    `used_bytes` are in tensors, `reserved_bytes` are held by the allocator; on a CPU both are resident memory.
    """

    gpu_share: float
    used_bytes: int
    reserved_bytes: int
    watts: float | None = None


@dataclass(frozen=True)
class DevicePlan:
    """How a task will be trained here, with the reason; memory in bytes.

    `device` is torch's name: `cpu`, `cuda:N`, `xpu:N` or `mps`. `needs_cpu_consent` says that the CPU was taken
    although nobody asked for it, so that a yes is needed first. With `checkpointing` activations are computed twice to
    save memory. What the ladder sets is 0 or empty while the task's own value holds: `micro_batch_size` rows in memory
    at once, `loss_chunk` answer positions whose logits exist at once, `optimizer`, and `max_tokens` per row.
    """

    device: str
    threads: int
    quantization: Quantization
    compute_dtype: DType
    reason: str
    estimated_bytes: int
    available_bytes: int
    checkpointing: bool = False
    needs_cpu_consent: bool = False
    micro_batch_size: int = 0
    loss_chunk: int = 0
    optimizer: Literal["", "paged_adamw_8bit"] = ""
    max_tokens: int = 0
    kind: Kind = "cpu"
    name: str = "CPU"
    """What people call the device, such as `NVIDIA GeForce RTX 4060`."""
    total_bytes: int = 0
    cpu_fix: str = ""
    """The command that would make the machine's GPU usable, where there is one."""
    python: str = ""
    """The interpreter that trains; empty means the one that runs here."""
    class_reason: str = ""
    """Why the base is held in this class, where the task lists several."""
    other_classes: tuple[Quantization, ...] = ()
    """The further classes that the task lists and the owner's limits allow: for a yes, never taken in silence."""
    rank: int = 0
    """The rank that is trained here, one of the task's; 0 means the largest."""
    most_steps: int = 0
    """Most optimizer steps of a round, where the task counts them by device; 0 means as many as the task says."""
    others: tuple[str, ...] = ()
    """The devices of further processes, each of which takes its share of every step's rows."""

    @property
    def class_words(self) -> str:
        """The base class, and why it is this one where the task lists several."""
        return f"{self.quantization}: {self.class_reason}" if self.class_reason else str(self.quantization)

    def serving(self, asked: "DevicePlan") -> Self:
        """Return the plan of a process that serves many clients, with what each brings of its own: steps and rank."""
        return replace(self, most_steps=asked.most_steps, rank=asked.rank)

    def applied(self, task: Task) -> Task:
        """Return the task as it is trained under this plan: what the ladder has lowered, and nothing else, differs."""
        spec, prompt = task.training, task.prompt
        most = {"local_steps" if spec.local_steps else "max_steps": min(self.most_steps, spec.most_steps)}
        training = spec.model_copy(
            update={
                **(most if self.most_steps else {}),
                "micro_batch_size": self.micro_batch_size or spec.micro_batch_size,
                "optimizer": Optimizer(self.optimizer) if self.optimizer else spec.optimizer,
            }
        )
        shorter = prompt.model_copy(update={"cutoff_tokens": min(self.max_tokens, prompt.cutoff_tokens)})
        return task.model_copy(update={"training": training, "prompt": shorter if self.max_tokens else prompt})

    def rows_at_once(self, document: TaskDocument) -> int:
        """Return the rows that are in memory at once."""
        return self.micro_batch_size or document.task.training.micro_batch_size

    def tokens_per_row(self, document: TaskDocument) -> int:
        """Return the most tokens of one row."""
        return min(self.max_tokens or document.task.prompt.cutoff_tokens, document.task.prompt.cutoff_tokens)

    def tokens_at_once(self, document: TaskDocument) -> int:
        """Return the most tokens that go through the model at once, as `training/batches.py` puts them together."""
        row = self.tokens_per_row(document)
        tokens = self.rows_at_once(document) * row
        packed = document.task.training.batching is Batching.PACKED
        return min(tokens, max(row, CPU_TOKENS)) if packed and self.kind == "cpu" else tokens

    def positions_at_once(self, document: TaskDocument) -> int:
        """Return the answer positions whose logits exist at once."""
        tokens = self.tokens_at_once(document)
        # Documents from before name no vocabulary: embedding rows stand in for it.
        vocabulary = document.vocabulary or document.other_parameters // max(1, document.hidden_size)
        usual = LOGITS_AT_ONCE["cpu" if self.kind == "cpu" else "gpu"] // max(1, vocabulary)
        return min(self.loss_chunk or max(1, usual), tokens)
