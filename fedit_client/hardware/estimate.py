"""What training a task will take in memory, from the task's document alone: before anything is fetched. No torch here.

The terms follow what the training does (`training/model.py`, `training/loss.py`), after EXPERIENCE, section 5; their
constants were fitted to measured peaks (`tests/bench/training_memory.py`, `tests/client/memory_peaks.json`).
"""

from dataclasses import dataclass, replace
from typing import Final

from fedit_client.hardware.optimizers import usable
from fedit_client.hardware.plan import DevicePlan
from fedit_protocol.task import Optimizer, Quantization, TaskDocument
from fedit_protocol.task_tables import MethodName

_BASE_BYTES: Final[dict[Quantization, float]] = {
    Quantization.NF4: 4.127 / 8,  # block 64, double quantisation (Dettmers et al. 2023)
    Quantization.INT8: 1.0,
    Quantization.BF16: 2.0,
    Quantization.FP32: 4.0,
}
_LOGIT_BYTES: Final = 16  # logits in the compute type and float32, the softmax, and gradients
_CHECKPOINTED_WIDTHS: Final = {"cpu": 5.2, "gpu": 1.0}
"""Hidden widths that each layer keeps of a token where the rest is computed again."""

_FLOAT_BYTES: Final = 4
_LIBRARIES_BYTES: Final = 575_000_000
"""Interpreter and libraries in a CPU's memory."""

_LEFT_BY_LOADING: Final[dict[Quantization, float]] = {Quantization.NF4: 0.72, Quantization.INT8: 1.9}
"""Of the base's bytes in half precision: what turning them into fewer bits leaves behind in a CPU's memory."""

_MOST_LEFT: Final = 2_000_000_000

GPU_CONTEXT_BYTES: Final = 500_000_000
"""What a process takes of a GPU before its first tensor: context, kernels, workspaces of the libraries."""

_GPU_SLACK_BYTES: Final = 400_000_000
"""What torch's allocator has reserved beside the tensors."""


@dataclass(frozen=True)
class Estimate:
    """The parts of a training process's peak, in bytes."""

    base: int
    adapter: int
    activations: int
    loss: int
    overhead: int

    @property
    def total(self) -> int:
        """All parts together."""
        return self.base + self.adapter + self.activations + self.loss + self.overhead


def estimate(document: TaskDocument, plan: DevicePlan) -> Estimate:
    """Return the peak of one training process under a plan: of resident memory on a CPU, else of the device's."""
    return Estimate(
        base=round(_base(document, plan)),
        adapter=_adapter(document, plan),
        activations=round(_activations(document, plan)),
        loss=round(_loss(document, plan)),
        overhead=round(_overhead(document, plan)),
    )


def estimated(document: TaskDocument, plan: DevicePlan) -> DevicePlan:
    """Return the plan with its own estimate."""
    return replace(plan, estimated_bytes=estimate(document, plan).total)


def _base(document: TaskDocument, plan: DevicePlan) -> float:
    elsewhere = 4 if plan.quantization is Quantization.FP32 else _width(plan)
    return document.linear_parameters * _BASE_BYTES[plan.quantization] + document.other_parameters * elsewhere


def _adapter(document: TaskDocument, plan: DevicePlan) -> int:
    """The adapter's numbers with what training keeps of each; where it is built from others, theirs."""
    lora, own = document.built.size, document.layout.size
    if _is_forward_only(document):
        return lora * 2 * _FLOAT_BYTES + own * _FLOAT_BYTES  # and where a step began
    if document.lora is None:
        rank = document.task.adapter.rank
        return own * (plan.rank or rank) // rank * _adapter_bytes(document, plan)
    # Bases and the product that stands in lora_B's place, with its gradient.
    rank = document.task.adapter.rank
    return lora * 3 * _FLOAT_BYTES + own * (plan.rank or rank) // rank * _adapter_bytes(document, plan)


def _is_forward_only(document: TaskDocument) -> bool:
    return document.task.method.name is MethodName.FEDKSEED


def _adapter_bytes(document: TaskDocument, plan: DevicePlan) -> int:
    """Weight and gradient in float32, and AdamW's two moments, in float32 or in one byte each."""
    kind, _ = usable(plan.applied(document.task).training.optimizer, plan.device)
    return 16 if kind is Optimizer.ADAMW else 10


def _activations(document: TaskDocument, plan: DevicePlan) -> float:
    """What the forward pass leaves for the backward pass."""
    tokens, layer = plan.tokens_at_once(document), _kept_per_token(document, plan)
    if _is_forward_only(document):
        return tokens * layer  # one layer at a time, for nothing waits for a way back
    if not plan.checkpointing:
        return tokens * layer * document.layers
    widths = _CHECKPOINTED_WIDTHS["cpu" if plan.kind == "cpu" else "gpu"]
    return tokens * (widths * document.hidden_size * _width(plan) * document.layers + layer)


def _kept_per_token(document: TaskDocument, plan: DevicePlan) -> float:
    """Bytes that one decoder layer keeps of one token: counted in torch, for a Llama with our attention and fusions.

    Norms, rotary attention and SwiGLU keep theirs. An adapted layer keeps its input and one byte of dropout's mask for
    each number of it; on a CPU other layers keep their inputs too, unless they multiply plain bfloat16.
    """
    widths, number, layers = _Widths.of(document), _width(plan), max(1, document.layers)
    fused = plan.quantization is not Quantization.INT8
    if number == 4:
        kept: float = 25 * widths.hidden + 12 * widths.feed
    else:
        kept = (7 if fused else 6) * widths.hidden + 4 * widths.key_value + 6 * widths.feed
    inputs = [tensor.shape[-1] for tensor in document.built.tensors if "lora_A" in tensor.name]
    adapted, mask = sum(inputs) / layers, 1 if document.task.adapter.dropout else 0
    # Fused adapters share one input between the layers that have it in common, PEFT's own copy each in float32.
    distinct = sum(set(inputs)) * (1 + (len(inputs) / layers > 3))
    kept += number * distinct + mask * adapted if fused else (4 + 4 * mask) * adapted
    plain_products = plan.quantization is Quantization.BF16
    if plan.kind == "cpu" and widths.feed in inputs:
        kept += 2 * number * widths.feed  # measured: the product before an adapted down projection is there three times
    elif plan.kind == "cpu" and not plain_products:
        kept += number * (4 * widths.hidden + widths.feed)
    return kept


def _loss(document: TaskDocument, plan: DevicePlan) -> float:
    """Logits of one chunk of positions, in float32, with their softmax and gradients."""
    return plan.positions_at_once(document) * _vocabulary(document) * _LOGIT_BYTES


def _overhead(document: TaskDocument, plan: DevicePlan) -> float:
    """Libraries or the device's context, and the largest layer's weights when they are unpacked to compute with."""
    widths = _Widths.of(document)
    whole = plan.quantization in {Quantization.BF16, Quantization.FP32}
    unpacked = 0 if whole else widths.hidden * widths.feed * _width(plan)
    if plan.kind == "cpu":
        halves = 2 * (document.linear_parameters + document.other_parameters)
        left = min(_MOST_LEFT, halves * _LEFT_BY_LOADING.get(plan.quantization, 0.0))
        return _LIBRARIES_BYTES + left + unpacked
    return GPU_CONTEXT_BYTES + _GPU_SLACK_BYTES + unpacked


def _width(plan: DevicePlan) -> int:
    return 4 if plan.compute_dtype == "float32" else 2


def _vocabulary(document: TaskDocument) -> int:
    # Documents from before name no vocabulary: embedding rows stand in for it.
    return document.vocabulary or document.other_parameters // max(1, document.hidden_size)


@dataclass(frozen=True)
class _Widths:
    """Widths of one decoder layer, worked out from the sizes that a document carries."""

    hidden: int
    key_value: int
    feed: int

    @classmethod
    def of(cls, document: TaskDocument) -> "_Widths":
        hidden = document.hidden_size
        if not hidden or not document.layers:
            return cls(hidden, 0, 0)
        rows = document.linear_parameters / document.layers / hidden  # of all linear layers, counted in hidden widths
        feed = document.intermediate_size or max(0, round((rows - 4 * hidden) / 3))
        return cls(hidden, max(0, round((rows - 2 * hidden - 3 * feed) / 2)), feed)
