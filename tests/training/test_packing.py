"""Packed, grouped or padded: the same losses, the same gradients, the same step; no row sees another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedit_client.training.attention import ROWS
from fedit_client.training.batches import Batch, Feeding, batches_of, collate, pack
from fedit_client.training.local import load, train_here
from fedit_client.training.loss import inputs, summed_loss
from fedit_client.training.model import write_adapter
from fedit_client.training.tokenize import Example
from fedit_client.training.traits import traits_of
from fedit_protocol.task import Batching

from ..tiny_llama import tiny_document
from .rows import SETTINGS, cpu
from .test_local import request, run

pytestmark = pytest.mark.training
LENGTHS = (3, 40, 300, 1, 17)
"""One row of a single token, which nothing predicts, and one of more than a block of queries."""


def rows(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[Example]:
    random = np.random.default_rng(seed)
    return [Example(random.integers(3, 260, length), random.integers(0, 2, length)) for length in lengths]


def model_of(base: Path, kind: str = "fp32", *, checkpointing: bool = False) -> Any:
    """The tiny Llama with an adapter whose B is not zero, so that every factor has a gradient."""
    document = tiny_document(base, base={"quantization": kind}, **SETTINGS)
    model = load(document, base, cpu(kind, checkpointing=checkpointing)).model
    random = np.random.default_rng(1)
    write_adapter(model, {t.name: random.normal(0, 0.1, t.shape).astype(np.float32) for t in document.layout.tensors})
    return model


def gradient(model: Any, batches: list[Batch]) -> tuple[float, torch.Tensor]:
    """The summed loss and its gradient, all tensors behind one another."""
    model.zero_grad(set_to_none=True)
    total = sum(float(loss.detach()) for batch in batches if [(loss := summed_loss(model, batch)).backward()])
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_packed_batch_gives_the_gradient_of_its_rows_alone(base: Path, checkpointing: bool) -> None:
    model = model_of(base, checkpointing=checkpointing).train()
    loss, packed = gradient(model, [pack(rows(), "cpu")])
    alone = [gradient(model, [collate([row], 0, "cpu")]) for row in rows()]
    assert loss == pytest.approx(sum(each for each, _ in alone), rel=1e-5)
    assert torch.allclose(packed, torch.stack([each for _, each in alone]).sum(0), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-4), ("bf16", 0.06), ("nf4", 1e-4)])
def test_a_packed_row_has_the_logits_that_it_has_alone(kind: str, tolerance: float, base: Path) -> None:
    model = model_of(base, kind).eval()
    with torch.no_grad():
        packed = model(**inputs(model, pack(rows(), "cpu"))).logits[0].float()
        alone = torch.cat([model(**inputs(model, collate([row], 0, "cpu"))).logits[0].float() for row in rows()])
    assert (packed - alone).abs().max() < tolerance * alone.abs().max()


@pytest.mark.parametrize("kind", ["fp32", "bf16", "nf4"])
def test_changing_a_row_changes_no_other_rows_logits(kind: str, base: Path) -> None:
    model = model_of(base, kind).eval()
    changed = rows()
    changed[1] = rows(seed=5)[1]
    with torch.no_grad():
        first, second = (model(**inputs(model, pack(each, "cpu"))).logits[0] for each in (rows(), changed))
    own = slice(LENGTHS[0], LENGTHS[0] + LENGTHS[1])
    assert not torch.equal(first[own], second[own])
    assert torch.equal(first[: own.start], second[: own.start])
    assert torch.equal(first[own.stop :], second[own.stop :])


def test_bfloat16_rows_have_the_gradient_of_float32_rows_but_for_rounding(base: Path) -> None:
    exact = gradient(model_of(base), [pack(rows(), "cpu")])[1]
    rounded = gradient(model_of(base, "bf16"), [pack(rows(), "cpu")])[1]
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.999


@pytest.mark.parametrize("batching", Batching)
def test_the_loss_of_a_step_does_not_depend_on_the_batching(batching: Batching, base: Path) -> None:
    model = model_of(base).train()
    feeding = Feeding(batching, 2, 64, 0, "cpu")
    loss, found = gradient(model, list(batches_of(rows(), feeding)))
    expected, whole = gradient(model, [collate(rows(), 0, "cpu")])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(found, whole, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("batching", ["grouped", "padded"])
def test_the_update_does_not_depend_on_the_batching(batching: str, base: Path, tmp_path: Path) -> None:
    packed = run(request(base, tmp_path, cpu(), local_steps=2, max_grad_norm=1000.0))
    other = run(request(base, tmp_path, cpu(), local_steps=2, max_grad_norm=1000.0, batching=batching))
    assert (packed.tokens, packed.examples) == (other.tokens, other.examples)
    assert packed.train_loss == pytest.approx(other.train_loss, rel=1e-4)
    # AdamW's first steps are signs: compare where the gradient is not a rounding error.
    assert np.mean(np.abs(packed.update - other.update) < 1e-4) > 0.98


def test_a_model_whose_rows_see_each_other_is_found_out_and_padded(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, cpu(), local_steps=1)
    loaded = load(asked.document, asked.base, asked.plan)
    assert traits_of(loaded.model).packs
    mixing = load(asked.document, asked.base, asked.plan)
    # A convolution over neighbours, as some architectures have it, knows nothing of rows.
    mixing.model.get_input_embeddings().register_forward_hook(lambda _m, _i, out: out + out.roll(1, dims=1))
    assert not traits_of(mixing.model).packs
    assert mixing.model.get_base_model().config._attn_implementation != ROWS
    with pytest.raises(RuntimeError, match="cannot keep packed rows apart"):
        summed_loss(mixing.model, pack(rows(), "cpu"))
    assert train_here(mixing, asked, lambda _: None).tokens == train_here(loaded, asked, lambda _: None).tokens


def test_a_head_that_does_more_than_multiply_is_found_out_and_used_whole(base: Path) -> None:
    model, other = model_of(base), model_of(base)
    forward = other.get_base_model().forward

    def capped(*args: Any, **named: Any) -> Any:
        out = forward(*args, **named)
        out.logits = 5 * torch.tanh(out.logits / 5)
        return out

    other.get_base_model().forward = capped
    assert traits_of(model).plain_head
    assert not traits_of(other).plain_head
    plain, soft = (float(summed_loss(each, pack(rows(), "cpu")).detach()) for each in (model, other))
    assert soft < plain


@pytest.mark.parametrize("kind", ["sliding", "qwen3"])
def test_other_architectures_pack_too(kind: str) -> None:
    from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    model: Any = (
        MistralForCausalLM(MistralConfig(**sizes, head_dim=8, sliding_window=9))
        if kind == "sliding"
        else Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16))
    )
    model.eval()
    assert traits_of(model).packs
    with torch.no_grad():
        packed = summed_loss(model, pack(rows(), "cpu"))
        alone = sum(float(summed_loss(model, collate([row], 0, "cpu"))) for row in rows())
    assert float(packed) == pytest.approx(alone, rel=1e-5)
