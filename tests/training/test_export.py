"""From NF4 training to what other programs load: PEFT, merged, GGUF, with logits that agree."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.config import ClientConfig
from fedit_client.conversations.exporting import ExportWishes, Form, Made, export
from fedit_client.export.precision import Precision
from fedit_client.training import TrainingRequest
from fedit_client.training.local import load, train_here
from fedit_client.training.model import load_tensors

from ..joined_home import joined_home
from ..tiny_llama import make_tiny_llama, tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training
PROMPT = [1, 88, 90, 200, 60, 61, 7, 2, 1]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose tokenizer cuts text into words as GPT-2 does: llama.cpp has no rule for none."""
    base = make_tiny_llama(tmp_path_factory.mktemp("words"))
    tokenizer = json.loads((base / "tokenizer.json").read_text("utf-8"))
    tokenizer["pre_tokenizer"]["use_regex"] = True
    (base / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    return base


@pytest.fixture(scope="module")
def home(words: Path, tmp_path_factory: pytest.TempPathFactory) -> ClientConfig:
    """A device that holds an untrained adapter and one that was really trained on an NF4 base."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("home")
    document = tiny_document(words, base={"quantization": "nf4"}, **SETTINGS)
    start = write_adapter(document, folder / "start.safetensors")
    asked = TrainingRequest(document, words, start, letters(), b"seed", cpu("nf4"))
    update = train_here(load(document, words, asked.plan), asked, lambda _: None).update
    layout = document.layout
    save_file(layout.unflatten(layout.flatten(load_tensors(start, layout)) + update), folder / "trained.safetensors")
    return joined_home(folder / "home", document, {0: start, 1: folder / "trained.safetensors"})


def made(home: ClientConfig, form: str, out: Path, dtype: str | None = None, version: int | None = None) -> Made:
    return export(home, ExportWishes(Form(form), out, version, Precision(dtype) if dtype else None))


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor([PROMPT])).logits[0].float().numpy()


def base_logits(base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))


def peft_logits(base: Path, folder: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder))


@pytest.fixture(scope="module")
def exact(words: Path, home: ClientConfig, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What plain PEFT computes from the exported adapter on the unquantized base, in float32: (T, V)."""
    folder = made(home, "peft", tmp_path_factory.mktemp("peft") / "out").folder
    found = peft_logits(words, folder)
    assert np.abs(found - base_logits(words)).max() > 1.0  # an adapter that says something
    return found


def test_what_peft_loads_is_what_this_client_trained(words: Path, home: ClientConfig, exact: Any) -> None:
    from fedit_client.training.model import write_adapter as set_adapter

    membership_document = tiny_document(words, base={"quantization": "nf4"}, **SETTINGS)
    loaded = load(membership_document, words, cpu("fp32"))
    tensors = home.paths.adapters / "tiny" / "1" / "adapter_model.safetensors"
    set_adapter(loaded.model, load_tensors(tensors, membership_document.layout))
    assert np.abs(logits(loaded.model) - exact).max() < 1e-5


# The tolerances are about three times what was seen: 4e-6, 5e-2 and 4e-3 on logits of up to 20.
@pytest.mark.parametrize(("dtype", "most"), [("f32", 2e-5), ("bf16", 0.2), ("f16", 0.02)])
def test_a_merged_model_speaks_like_base_and_adapter(
    dtype: str, most: float, home: ClientConfig, exact: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = made(home, "merged", tmp_path / "out", dtype)
    model = AutoModelForCausalLM.from_pretrained(done.folder)
    assert str(model.dtype) == {"f32": "torch.float32", "bf16": "torch.bfloat16", "f16": "torch.float16"}[dtype]
    assert np.abs(logits(model.float()) - exact).max() < most
    assert AutoTokenizer.from_pretrained(done.folder).chat_template
    assert done.survival is not None
    assert 0 <= done.survival.lost < 0.2


@pytest.mark.parametrize(("dtype", "most"), [("f32", 2e-5), ("bf16", 0.2), ("f16", 0.02), ("q8_0", 0.5)])
def test_a_gguf_file_read_by_transformers_speaks_like_base_and_adapter(
    dtype: str, most: float, home: ClientConfig, exact: Any, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    done = made(home, "gguf", tmp_path / "out", dtype)
    (file,) = done.folder.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(done.folder, gguf_file=file.name, dtype=torch.float32)
    assert np.abs(logits(model) - exact).max() < most


def test_an_untrained_adapter_is_said_to_change_nothing(home: ClientConfig, tmp_path: Path) -> None:
    done = made(home, "merged", tmp_path / "out", "f32", version=0)
    assert done.lines()[0] == "the adapter changes nothing: it is the untrained one"


def test_what_small_adapters_lose_in_bf16_is_said(words: Path, home: ClientConfig, tmp_path: Path) -> None:
    """A change far below half a unit in the last place of bfloat16 is gone, and the figure says so."""
    from safetensors.numpy import load_file, save_file

    document = tiny_document(words, base={"quantization": "nf4"}, **SETTINGS)
    trained = load_file(home.paths.adapters / "tiny" / "1" / "adapter_model.safetensors")
    faint = {name: array * np.float32(1e-3 if "lora_B" in name else 1) for name, array in trained.items()}
    save_file(faint, tmp_path / "faint.safetensors")
    device = joined_home(tmp_path / "home", document, {1: tmp_path / "faint.safetensors"})
    lost = {dtype: made(device, "merged", tmp_path / dtype, dtype).survival for dtype in ("f32", "bf16")}
    assert lost["f32"] is not None
    assert lost["bf16"] is not None
    assert lost["f32"].lost < 0.01
    assert lost["bf16"].lost > 0.5
    assert lost["bf16"].moved_share < 0.3 < lost["f32"].moved_share
