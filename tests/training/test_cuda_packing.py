"""The same on a GPU: packed rows apart, the gradient of the CPU but for rounding, and a loss that falls in NF4."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.attention import Rows, rows_attention
from fedit_client.training.batches import collate, pack
from fedit_client.training.fused import fuse
from fedit_client.training.loss import inputs, summed_loss
from fedit_client.training.model import attach_adapter, load_base, write_adapter
from fedit_client.training.traits import traits_of
from fedit_protocol.task import Quantization

from ..tiny_llama import tiny_document
from .rows import SETTINGS
from .test_packing import LENGTHS, gradient, rows

pytestmark = [pytest.mark.training, pytest.mark.gpu]


def model_of(base: Path, kind: str, device: str, dtype: Any = "bfloat16") -> Any:
    document = tiny_document(base, base={"quantization": kind}, **SETTINGS)
    plan = DevicePlan(device, 1, Quantization(kind), dtype, "a test", 0, 0)
    model = attach_adapter(load_base(base, plan), document.task.adapter, document.layout)
    fuse(model)
    random = np.random.default_rng(1)
    write_adapter(model, {t.name: random.normal(0, 0.1, t.shape).astype(np.float32) for t in document.layout.tensors})
    return model.train()


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_over_rows_is_that_of_each_row(heads: int, groups: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    count = sum(LENGTHS)
    shapes = [(1, kind, count, 32) for kind in (heads, groups, groups)]
    parts = [torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes]
    on_cpu = [part.detach().float().cpu().requires_grad_() for part in parts]
    together, _ = rows_attention(None, parts[0], parts[1], parts[2], None, rows=Rows.of(LENGTHS, torch.device("cuda")))
    alone, _ = rows_attention(None, on_cpu[0], on_cpu[1], on_cpu[2], None, rows=Rows.of(LENGTHS, torch.device("cpu")))
    tolerance = 0.03 if dtype == torch.bfloat16 else 2e-3
    assert torch.allclose(together.float().cpu(), alone, atol=tolerance)
    given = torch.randn(alone.shape)
    together.backward(given.to("cuda", dtype))
    alone.backward(given)
    for found, expected in zip(parts, on_cpu, strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        assert torch.cosine_similarity(found.grad.float().cpu().flatten(), expected.grad.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("kind", ["bf16", "nf4"])
def test_no_row_sees_another(kind: str, base: Path) -> None:
    model = model_of(base, kind, "cuda:0").eval()
    assert traits_of(model).packs
    changed = rows()
    changed[1] = rows(seed=5)[1]
    with torch.no_grad():
        first, second = (model(**inputs(model, pack(each, "cuda:0"))).logits[0] for each in (rows(), changed))
        alone = torch.cat([model(**inputs(model, collate([row], 0, "cuda:0"))).logits[0] for row in rows()])
    own = slice(LENGTHS[0], LENGTHS[0] + LENGTHS[1])
    assert torch.equal(first[: own.start], second[: own.start])
    assert torch.equal(first[own.stop :], second[own.stop :])
    assert (first - alone).abs().max() < 0.06 * alone.abs().max()


def test_the_gradient_is_that_of_the_cpu_but_for_rounding(base: Path) -> None:
    exact = gradient(model_of(base, "fp32", "cpu", "float32"), [pack(rows(), "cpu")])[1]
    for kind, dtype, likeness in (("fp32", "float32", 0.9999), ("bf16", "bfloat16", 0.998)):
        found = gradient(model_of(base, kind, "cuda:0", dtype), [pack(rows(), "cuda:0")])[1].cpu()
        assert torch.cosine_similarity(exact, found, dim=0) > likeness, kind


def test_the_loss_falls_in_nf4(base: Path) -> None:
    model, batch = model_of(base, "nf4", "cuda:0"), pack(rows(), "cuda:0")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(8):
        loss = summed_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
