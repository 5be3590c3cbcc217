"""The side delta in training: a second, frozen adapter that everything is computed with and nothing is learned in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedit_client.training.batches import pack
from fedit_client.training.model import attach_adapter, load_base, read_adapter, write_adapter
from fedit_client.training.side import beside, worn
from fedit_protocol.errors import ModelError
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.side_delta import SIDE, as_state, joined
from fedit_protocol.peft_folder import FACTORS, WEIGHTS
from fedit_protocol.task import TaskDocument

from ..tiny_llama import tiny_document
from .rows import SETTINGS, cpu
from .test_fused import model_of
from .test_packing import gradient, rows

pytestmark = pytest.mark.training
COLUMNS = 3


def document_of(base: Path, kind: str = "fp32") -> TaskDocument:
    adapter = {**SETTINGS["adapter"], "dropout": 0.0}
    made: TaskDocument = tiny_document(base, base={"quantization": kind}, adapter=adapter)
    return made


def state_file(document: TaskDocument, folder: Path) -> Path:
    """A side delta of three columns in every layer but the first."""
    draw, factors = np.random.default_rng(2), {}
    for pair in lora_pairs(document.layout)[1:]:
        factors[pair.path] = draw.normal(0, 0.1, (pair.m, COLUMNS)), draw.normal(0, 0.1, (COLUMNS, pair.n))
    save_file(dict(as_state(SIDE, factors)), folder / "state.safetensors")
    return folder / "state.safetensors"


def joined_model(base: Path, document: TaskDocument, tensors: Any, state: Path) -> Any:
    """Both adapters as one of rank r + 3 and scale 1, as PEFT computes it."""
    layout, vector = joined(document.layout, document.task.adapter, document.layout.flatten(tensors), load_file(state))
    rank = document.task.adapter.rank + COLUMNS
    spec = document.task.adapter.model_copy(update={"rank": rank, "alpha": float(rank)})
    model = attach_adapter(load_base(base, cpu()), spec, layout)
    write_adapter(model, layout.unflatten(vector))
    return model.train()


@pytest.mark.parametrize("fused", [False, True])
def test_loss_and_gradient_are_those_of_both_adapters_as_one(fused: bool, base: Path, tmp_path: Path) -> None:
    document, batch = document_of(base), [pack(rows(), "cpu")]
    model = model_of(base, "fp32", fused=fused)
    state = state_file(document, tmp_path)
    other = joined_model(base, document, read_adapter(model), state)
    bare, _ = gradient(model, batch)
    with beside(model, document.layout, state):
        loss, _ = gradient(model, batch)
        grown = {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
    wanted, _ = gradient(other, batch)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert abs(bare - wanted) > 1e-3, "the side delta says something here"
    rank, scale = document.task.adapter.rank, document.task.adapter.alpha / document.task.adapter.rank
    for name, value in other.named_parameters():
        if value.requires_grad:
            part = value.grad[:rank] if "lora_A" in name else value.grad[:, :rank] * scale
            assert torch.allclose(grown[name], part, rtol=1e-3, atol=1e-5 * float(part.abs().max())), name


def test_it_has_no_parameters_and_is_gone_afterwards(base: Path, tmp_path: Path) -> None:
    document, batch = document_of(base), [pack(rows(), "cpu")]
    model = model_of(base, "fp32", fused=True)
    before, _ = gradient(model, batch)
    names = [name for name, _ in model.named_parameters()]
    with beside(model, document.layout, state_file(document, tmp_path)):
        assert [name for name, _ in model.named_parameters()] == names
        assert gradient(model, batch)[0] != before
    assert gradient(model, batch)[0] == before


def test_the_base_alone_is_the_base_alone(base: Path, tmp_path: Path) -> None:
    document, model = document_of(base), model_of(base, "fp32", fused=True).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad(), model.disable_adapter():
        bare = model(ids).logits
        with beside(model, document.layout, state_file(document, tmp_path)):
            assert torch.equal(model(ids).logits, bare)


def test_in_bfloat16_it_is_computed_like_the_layer(base: Path, tmp_path: Path) -> None:
    document, batch = document_of(base, "bf16"), [pack(rows(), "cpu")]
    state = state_file(document, tmp_path)
    whole, half = model_of(base, "fp32", fused=True), model_of(base, "bf16", fused=True)
    with beside(whole, document.layout, state), beside(half, document.layout, state):
        assert gradient(half, batch)[0] == pytest.approx(gradient(whole, batch)[0], rel=5e-3)


def test_one_of_other_shapes_is_refused(base: Path, tmp_path: Path) -> None:
    document, model = document_of(base), model_of(base, "fp32", fused=False)
    path = lora_pairs(document.layout)[0].path
    wrong = {f"side/{path}.left": np.zeros((3, 2), np.float32), f"side/{path}.right": np.zeros((2, 5), np.float32)}
    save_file(wrong, tmp_path / "state.safetensors")
    with pytest.raises(ModelError) as error, beside(model, document.layout, tmp_path / "state.safetensors"):
        pass
    assert error.value.code == "M004"


def test_a_kept_version_is_worn_with_its_side_delta_however_it_is_named(base: Path, tmp_path: Path) -> None:
    document, batch = document_of(base), [pack(rows(), "cpu")]
    model = model_of(base, "fp32", fused=True)
    tensors, state = read_adapter(model), state_file(document, tmp_path)
    save_file(tensors, tmp_path / FACTORS)
    with beside(model, document.layout, state):
        wanted, _ = gradient(model, batch)
    write_adapter(model, {name: 0 * value for name, value in tensors.items()})
    for path in (tmp_path, tmp_path / FACTORS, tmp_path / WEIGHTS):
        with worn(model, document, path):
            assert gradient(model, batch)[0] == pytest.approx(wanted, rel=1e-6)
