"""Bases for the peers: SmolLM2 from its folder, or a 7B of random weights that is made on the GPU and never stored."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.quantizers.auto import AutoHfQuantizer

from fedit_client.training.model import keep_weights_trainable

from .training_setting import Setting

_SEED = 7


def tokenizer_of(setting: Setting) -> Any:
    """The base's tokenizer, or a small one that only pads."""
    if not setting.random_weights:
        return AutoTokenizer.from_pretrained(setting.base, local_files_only=True)
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def recipe_base(setting: Setting) -> Any:
    """The base as transformers users load it: NF4, or bfloat16."""
    if setting.random_weights:
        return random_base(setting)
    return AutoModelForCausalLM.from_pretrained(
        Path(setting.base),
        dtype=torch.bfloat16,
        quantization_config=nf4() if setting.quantization == "nf4" else None,
        device_map={"": setting.device},
        local_files_only=True,
    )


def nf4() -> BitsAndBytesConfig:
    """Block 64, double quantisation, bfloat16 products."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


@torch.no_grad()
def random_base(setting: Setting) -> Any:
    """A Llama of random weights made on its device, layer by layer, so that it is never there in full precision."""
    device, quantization = torch.device(setting.device), setting.quantization
    sizes: Any = setting.shapes
    config = LlamaConfig(
        **sizes,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    torch.manual_seed(_SEED)
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            _replace(model, path, _linear(module, quantization if path != "lm_head" else "bf16", device))
        elif isinstance(module, torch.nn.Embedding):
            module.weight = torch.nn.Parameter(_random(tuple(module.weight.shape), device), requires_grad=False)
        elif type(module).__name__.endswith("RMSNorm"):
            ones = torch.ones(module.weight.shape, dtype=torch.bfloat16, device=device)
            module.weight = torch.nn.Parameter(ones, requires_grad=False)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            with device:
                _replace(model, path, type(module)(config))
    model.config.dtype = torch.bfloat16
    if quantization == "nf4":
        model.is_loaded_in_4bit = model.is_quantized = True
        model.quantization_method = "bitsandbytes"
        model.config.quantization_config = nf4()
        # Trainers ask it whether such weights can have adapters.
        model.hf_quantizer = AutoHfQuantizer.from_config(nf4(), pre_quantized=False)
    keep_weights_trainable(model)
    return model


def _random(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)


def _linear(old: torch.nn.Linear, quantization: str, device: torch.device) -> torch.nn.Module:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    weight = _random((old.out_features, old.in_features), device)
    if quantization != "nf4":
        plain = torch.nn.Linear(old.in_features, old.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        return plain
    made = Linear4bit(
        old.in_features,
        old.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    quantised: Any = Params4bit(
        weight,
        requires_grad=False,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
    )
    made.weight = quantised.to(device)
    if getattr(made.weight, "quant_state", None) is None:
        raise RuntimeError("bitsandbytes did not quantise a weight that lay on the GPU already")
    return made


def _replace(model: Any, path: str, new: torch.nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
