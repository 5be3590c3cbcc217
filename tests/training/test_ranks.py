"""A device of lower rank trains the first slices under everybody's scale; the others come back as they went."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedit_client.training.local import load, train_here
from fedit_client.training.model import write_adapter
from fedit_client.training.ranks import cut
from fedit_client.training.request import TrainingRequest
from fedit_client.training.resident import ResidentBase
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.nested import limited

from ..tiny_llama import tiny_document
from ..tiny_llama import write_adapter as write_adapter_file
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training


def request(base: Path, folder: Path, rank: int) -> TrainingRequest:
    adapter = {**SETTINGS["adapter"], "rank": 4, "ranks": (2, 4), "dropout": 0.0}
    document = tiny_document(base, **{**SETTINGS, "adapter": adapter, "method": {"name": "nested"}})
    path = write_adapter_file(document, folder / "global.safetensors", zero_b=False)
    return TrainingRequest(document, base, path, letters(), b"seed", replace(cpu(), rank=rank), split_seed=b"split")


def test_the_slices_above_its_rank_do_not_move(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, 2)
    result = train_here(load(asked.document, asked.base, asked.plan), asked, lambda _progress: None)
    layout: AdapterLayout = asked.document.layout
    assert result.update.shape == (layout.size,)
    assert np.array_equal(result.update, limited(layout, result.update, 2))
    for pair in lora_pairs(layout):
        a, b = pair.factors(result.update)
        assert a[:2].all()
        assert b[:, :2].any()


def test_its_model_is_the_first_slices_under_the_scale_of_all(base: Path, tmp_path: Path) -> None:
    asked, whole = request(base, tmp_path, 2), request(base, tmp_path, 0)
    tensors = load_file(asked.global_adapter)
    narrow = load(asked.document, base, asked.plan).model.eval()
    write_adapter(narrow, cut(tensors, 2))
    first = asked.document.layout.unflatten(limited(asked.document.layout, asked.document.layout.flatten(tensors), 2))
    full = load(whole.document, base, whole.plan).model.eval()
    write_adapter(full, first)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.allclose(narrow(ids).logits, full(ids).logits, atol=1e-4)


def test_at_the_largest_rank_it_is_what_it_was(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, 0)
    one = train_here(load(asked.document, base, asked.plan), asked, lambda _progress: None)
    same = replace(asked, plan=replace(asked.plan, rank=4))
    other = train_here(load(same.document, base, same.plan), same, lambda _progress: None)
    assert np.array_equal(one.update, other.update)


def test_a_resident_base_trains_each_request_at_its_own_rank(base: Path, tmp_path: Path) -> None:
    asked = [request(base, tmp_path, rank) for rank in (0, 2, 4)]
    resident = ResidentBase(cpu())
    found = [resident.train(one) for one in asked]
    alone = [train_here(load(one.document, base, one.plan), one, lambda _progress: None) for one in asked]
    assert all(np.array_equal(one.update, other.update) for one, other in zip(found, alone, strict=True))
    assert not np.array_equal(found[0].update, found[1].update)
