"""llama.cpp loads what `export` writes, and says what we say: every family, its tokenizer, merged and as a LoRA."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.conversations.exporting import ExportWishes, Form, export
from fedit_client.export.precision import Precision

from ..joined_home import joined_home
from ..tiny_llama import tiny_document, write_adapter
from .families import FAMILIES, TEXTS, make_family
from .llama_cpp import next_tokens, tokens

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(600)]
PROMPTS = 3
MOST = 0.02
"""In nats, for f16 weights and llama.cpp's f16 cache; a tensor in a wrong place is off by a whole nat."""

SETTINGS = {"adapter": {"rank": 4, "alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]}}


class Ours:
    """What plain transformers and PEFT say, in float32, after prompts whose likeliest next token is a character."""

    def __init__(self, base: Path, adapter: Path | None) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter) if adapter else model
        tokenizer = AutoTokenizer.from_pretrained(base)
        random = np.random.default_rng(5)
        self.prompts: list[list[int]] = []
        self.wanted: list[Any] = []
        while len(self.prompts) < PROMPTS:
            ids = [1, *(int(place) for place in random.integers(4, model.config.vocab_size, 20))]
            with torch.no_grad():
                found = torch.log_softmax(model.eval()(torch.tensor([ids])).logits[0, -1], dim=-1).numpy()
            word = str(tokenizer.decode([int(found.argmax())]))
            if word.isascii() and word.isprintable() and word:
                self.prompts.append(ids)
                self.wanted.append(found)

    def farthest(self, file: Path, lora: Path | None = None) -> float:
        """The largest difference of a log-probability, over the ten tokens that llama.cpp finds likeliest."""
        told = next_tokens(file, self.prompts, lora=lora)
        pairs = zip(told, self.wanted, strict=True)
        return max(abs(logprob - float(wanted[token])) for found, wanted in pairs for token, logprob in found.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_its_tokenizer(family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = make_family(family, tmp_path / "base")
    document = tiny_document(base, **SETTINGS)
    adapter = write_adapter(document, tmp_path / "adapter.safetensors", zero_b=False)
    home = joined_home(tmp_path / "home", document, {1: adapter})
    ours = Ours(base, home.paths.adapters / "tiny" / "1")
    file = next(export(home, ExportWishes(Form.GGUF, tmp_path / "gguf")).folder.glob("*.gguf"))
    assert ours.farthest(file) < MOST
    merged = Ours(export(home, ExportWishes(Form.MERGED, tmp_path / "merged", precision=Precision.F32)).folder, None)
    assert merged.prompts == ours.prompts
    assert np.abs(np.array(merged.wanted) - np.array(ours.wanted)).max() < 1e-4
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokens(file, TEXTS) == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    lora = next(export(home, ExportWishes(Form.GGUF_LORA, tmp_path / "lora")).folder.glob("*.gguf"))
    alone = joined_home(tmp_path / "alone", document, {0: write_adapter(document, tmp_path / "zero.safetensors")})
    plain = next(export(alone, ExportWishes(Form.GGUF, tmp_path / "plain")).folder.glob("*.gguf"))
    assert Ours(base, None).farthest(plain) < MOST
    assert ours.farthest(plain, lora) < MOST


# How far rounding may move a log-probability of these wide random weights; f32 has llama.cpp's f16 cache in it.
@pytest.mark.parametrize(("dtype", "most"), [("f32", 0.02), ("f16", 0.02), ("bf16", 0.2), ("q8_0", 0.5)])
def test_every_precision_is_read(dtype: str, most: float, tmp_path: Path) -> None:
    base = make_family("llama with words of GPT-2", tmp_path / "base")
    document = tiny_document(base, **SETTINGS)
    adapter = write_adapter(document, tmp_path / "adapter.safetensors", zero_b=False)
    home = joined_home(tmp_path / "home", document, {1: adapter})
    made = export(home, ExportWishes(Form.GGUF, tmp_path / "gguf", precision=Precision(dtype)))
    assert Ours(base, home.paths.adapters / "tiny" / "1").farthest(next(made.folder.glob("*.gguf"))) < most
