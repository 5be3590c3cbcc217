"""A Llama that is real in every part and small in all: two layers, random weights, a byte tokenizer, a chat template.

Made in about a second, without a download. `make_tiny_llama(folder)` gives what a client calls a base model.
"""

import json
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
MERGES = [("t", "h"), ("th", "e"), ("Ċ", "Ċ"), (":", "Ċ"), ("o", "k"), ("e", "r")]
"""A few merges, so that tokens can be longer than a byte and a boundary can fall inside one."""


def make_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Write the model into `folder` and return it; the same seed gives the same bytes.

    Hidden 64, two layers, 4 query and 2 key-value heads, feed-forward 128, vocabulary 265, tied head.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        # Wide enough that the tied head tells tokens apart: at the usual 0.02 no adapter could lower the loss much.
        initializer_range=0.15,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    raw = Tokenizer(models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=MERGES))
    # One pretoken for the whole text: merges may then cross every boundary that a careless mask would rely on.
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_shapes(folder: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Return the linear layers of a model folder as path → (out, in), and how many numbers lie elsewhere."""
    from safetensors import safe_open

    linear: dict[str, tuple[int, int]] = {}
    elsewhere = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - this is no dict
                shape = file.get_slice(name).get_shape()
                if len(shape) == 2 and "embed" not in name:
                    linear[name.removesuffix(".weight")] = (shape[0], shape[1])
                else:
                    elsewhere += shape[0] * (shape[1] if len(shape) == 2 else 1)
    return linear, elsewhere


def tiny_document(folder: Path, **sections: Any) -> Any:
    """Return a TaskDocument for a model folder; keyword arguments are the task's tables, such as `training={...}`."""
    from fedit_client.base.model import digest_folder
    from fedit_protocol.adapter import AdapterLayout
    from fedit_protocol.state_layout import state_layout
    from fedit_protocol.task import Task, TaskDocument

    base = {"model": str(folder), "digest": digest_folder(folder), **sections.pop("base", {})}
    task = Task.model_validate({"id": "tiny", "title": "Tiny", "base": base, **sections})
    linear, elsewhere = tiny_shapes(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    lora = AdapterLayout.of_lora(linear, task.adapter.target_modules, task.adapter.rank)
    state = state_layout(task.method, lora)
    return TaskDocument(
        task=task,
        layout=state or lora,
        lora=lora if state else None,
        linear_parameters=sum(out * into for out, into in linear.values()),
        other_parameters=elsewhere,
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        intermediate_size=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        base_bytes=sum(path.stat().st_size for path in folder.iterdir()),
    )


def write_adapter(document: Any, path: Path, *, seed: int = 0, zero_b: bool = True) -> Path:
    """Write a global adapter for a document: A uniform as PEFT draws it, B zero (or small numbers)."""
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    tensors = {}
    for tensor in document.built.tensors:
        bound = 1 / np.sqrt(tensor.shape[1])
        values = random.uniform(-bound, bound, tensor.shape).astype(np.float32)
        tensors[tensor.name] = values * 0 if zero_b and "lora_B" in tensor.name else values
    save_file(tensors, path)
    return path
