"""The fused parts give what PEFT and transformers give, and step aside where they would not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedit_client.training.batches import pack
from fedit_client.training.fused import fuse
from fedit_client.training.loss import summed_loss
from fedit_client.training.model import attach_adapter, load_base, write_adapter

from ..tiny_llama import tiny_document
from .rows import SETTINGS, cpu
from .test_packing import gradient, rows

pytestmark = pytest.mark.training


def model_of(base: Path, kind: str, *, fused: bool, dropout: float = 0.0, **changes: Any) -> Any:
    import numpy as np

    adapter = {**SETTINGS["adapter"], "dropout": dropout}
    document = tiny_document(base, base={"quantization": kind}, adapter=adapter)
    model = attach_adapter(load_base(base, cpu(kind)), document.task.adapter, document.layout)
    random = np.random.default_rng(1)
    write_adapter(model, {t.name: random.normal(0, 0.1, t.shape).astype(np.float32) for t in document.layout.tensors})
    if fused:
        fuse(model)
    return model.train()


@pytest.mark.parametrize(
    ("kind", "likeness"), [("fp32", 0.999999), ("nf4", 0.999999), ("int8", 0.999), ("bf16", 0.998)]
)
def test_fused_parts_give_the_gradient_of_the_plain_ones(kind: str, likeness: float, base: Path) -> None:
    batch = [pack(rows(), "cpu")]
    plain_loss, plain = gradient(model_of(base, kind, fused=False), batch)
    loss, found = gradient(model_of(base, kind, fused=True), batch)
    assert loss == pytest.approx(plain_loss, rel=1e-5 if likeness > 0.9999 else 5e-3)
    assert torch.cosine_similarity(plain, found, dim=0) > likeness
    assert found.norm() / plain.norm() == pytest.approx(1, rel=0.01)


def test_dropout_drops_the_asked_share_and_keeps_the_mean() -> None:
    from fedit_client.training import fused

    torch.manual_seed(0)
    ones = torch.ones(1000, 101, dtype=torch.bfloat16)
    for share in (0.05, 0.5):
        kept = fused._kept(ones, fused._keep(ones, share))
        assert set(kept.unique().tolist()) == {0.0, 1.0}
        assert float(kept.float().mean()) == pytest.approx(1 - share, abs=0.005)


def test_the_gradient_with_dropout_is_that_of_the_numbers_kept(base: Path) -> None:
    model, batch = model_of(base, "fp32", fused=True, dropout=0.3), pack(rows(), "cpu")
    parameter = next(p for p in model.parameters() if p.requires_grad)

    def loss() -> torch.Tensor:
        torch.manual_seed(5)  # the same numbers are dropped every time
        return summed_loss(model, batch)

    loss().backward()
    direction = parameter.grad.clone()
    step = 1e-3 / float(direction.norm())
    with torch.no_grad():
        parameter.add_(direction, alpha=step)
        above = float(loss())
        parameter.add_(direction, alpha=-2 * step)
        below = float(loss())
    assert (above - below) / (2 * step) == pytest.approx(float(direction.square().sum()), rel=0.05)


def test_an_adapter_that_is_off_is_off(base: Path) -> None:
    model = model_of(base, "fp32", fused=True).eval()
    bare = load_base(base, cpu())
    with torch.no_grad(), model.disable_adapter():
        assert torch.allclose(model(batch_ids()).logits, bare(batch_ids()).logits, atol=1e-4)


def test_a_norm_or_gate_of_another_formula_stays_as_it_is() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    model: Any = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    ids = batch_ids()
    with torch.no_grad():
        before = model(ids).logits
        fuse(model)
        assert torch.equal(model(ids).logits, before)


def batch_ids() -> torch.Tensor:
    return torch.arange(3, 20)[None]
