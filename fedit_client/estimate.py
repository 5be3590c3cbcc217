"""What training a task will take in memory, from the task's document alone: before anything is fetched. No torch here.

The terms follow what the training does (`training/model.py`, `training/loss.py`), after EXPERIENCE, section 5; their
constants were fitted to measured peaks, which `training/BENCHMARKS.md` lists.
"""

from dataclasses import dataclass, replace
from typing import Final

from fedit_client.device_plan import DevicePlan
from fedit_client.optimizers import usable
from fedit_protocol.task import Optimizer, Quantization, TaskDocument

_BASE_BYTES: Final[dict[Quantization, float]] = {
    Quantization.NF4: 4.127 / 8,  # block 64, double quantisation (Dettmers et al. 2023)
    Quantization.INT8: 1.0,
    Quantization.BF16: 2.0,
    Quantization.FP32: 4.0,
}
_LOGIT_BYTES: Final = 16  # logits in the compute type and float32, the softmax, and gradients
_BACKWARD_WIDTHS: Final = 4  # feed-forward widths per token that one layer's backward pass holds at its widest
_LIBRARIES_BYTES: Final = 700_000_000
"""Interpreter and libraries in a CPU's memory."""

GPU_CONTEXT_BYTES: Final = 500_000_000
"""What a process takes of a GPU before its first tensor: context, kernels, workspaces of the libraries."""


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
        adapter=document.layout.size * _adapter_bytes(document, plan),
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


def _adapter_bytes(document: TaskDocument, plan: DevicePlan) -> int:
    """Weight and gradient in float32, and AdamW's two moments, in float32 or in one byte each."""
    kind, _ = usable(plan.applied(document.task).training.optimizer, plan.device)
    return 16 if kind is Optimizer.ADAMW else 10


def _activations(document: TaskDocument, plan: DevicePlan) -> float:
    """What the forward pass leaves for the backward pass, and what one layer's backward pass adds."""
    tokens = plan.tokens_at_once(document)
    layer = _saved_per_token(document, plan)
    kept = (
        document.hidden_size * _width(plan) * document.layers + layer if plan.checkpointing else layer * document.layers
    )
    return tokens * (kept + _BACKWARD_WIDTHS * _Widths.of(document).feed * _width(plan))


def _saved_per_token(document: TaskDocument, plan: DevicePlan) -> float:
    """Bytes that one decoder layer keeps of one token: counted in torch, for a Llama with SDPA attention.

    Frozen linear layers keep nothing; norms, rotary attention and SwiGLU do. The adapter computes in float32: it keeps
    its inputs, after dropout with the mask beside them.
    """
    widths, number = _Widths.of(document), _width(plan)
    block = widths.hidden * (16 if number == 4 else 12) + number * (2 * widths.key_value + 3 * widths.feed)
    mask = 0 if not document.task.adapter.dropout else 4 if plan.kind == "cpu" else 1
    adapted = sum(tensor.shape[-1] for tensor in document.layout.tensors if "lora_A" in tensor.name)
    return block + (4 + mask) * adapted / max(1, document.layers)


def _loss(document: TaskDocument, plan: DevicePlan) -> float:
    """Logits of one chunk of positions, in float32, with their softmax and gradients."""
    return plan.positions_at_once(document) * _vocabulary(document) * _LOGIT_BYTES


def _overhead(document: TaskDocument, plan: DevicePlan) -> float:
    """Libraries or the device's context, and the largest layer's weights when they are unpacked to compute with."""
    widths = _Widths.of(document)
    unpacked = 0 if plan.quantization in {Quantization.BF16, Quantization.FP32} else widths.hidden * widths.feed
    return (_LIBRARIES_BYTES if plan.kind == "cpu" else GPU_CONTEXT_BYTES) + unpacked * _width(plan)


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
