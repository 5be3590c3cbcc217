"""Tiny models of every family that GGUF is written for, with random weights and a tokenizer of the family's kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedit_client.export import tokens as rules

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "Hello, the other world's 12345 things: théâtre!",
    "  two  spaces\n\nand\tlines \r\n, don't WE'LL 3.14",
    "日本語 and emoji 🎉🎉 x_y-z (the) {other}",
    "<|im_start|>user\nthe theory of other things<|im_end|>\n",
]
_MERGES = [
    ("t", "h"),
    ("th", "e"),
    ("o", "th"),
    ("e", "r"),
    ("oth", "er"),
    ("Ġ", "the"),
    ("Ġ", "t"),
    ("1", "2"),
    ("Ċ", "Ċ"),
]


def _bytes(pre: Callable[[], Any], *, ignore_merges: bool = False) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in _MERGES)]
    vocab = {piece: place for place, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=_MERGES, ignore_merges=ignore_merges))
    raw.pre_tokenizer = pre()
    raw.decoder = decoders.ByteLevel()
    return raw


def _words() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _words()])


def _split(pattern: str) -> Callable[[], Any]:
    def made() -> Any:
        from tokenizers import Regex, pre_tokenizers

        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), whole])

    return made


def _characters() -> Any:
    """As Gemma's: spaces made visible, bytes where a character is unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("o", "th"), ("e", "r"), ("oth", "er"), ("▁", "oth"), ("▁", "▁")]
    letters = sorted(set("".join(TEXTS)) & set("abcdefghijklmnopqrstuvwxyzHWEL'.,:!(){}_-0123456789\n"))
    pieces = [
        "<unk>",
        *SPECIAL,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *letters,
        *(a + b for a, b in merges),
    ]
    vocab = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return raw


FAMILIES: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "llama with words of GPT-2": ("LlamaConfig", {"tie_word_embeddings": True}, lambda: _bytes(_words)),
    "llama with a bias, a wide head and single digits": (
        "LlamaConfig",
        {"attention_bias": True, "head_dim": 32, "tie_word_embeddings": False},
        lambda: _bytes(_digits),
    ),
    "llama 3 with stretched positions": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        lambda: _bytes(_split(rules.LLAMA3), ignore_merges=True),
    ),
    "qwen 2": ("Qwen2Config", {"tie_word_embeddings": True}, lambda: _bytes(_split(rules.QWEN2))),
    "qwen 3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": False}, lambda: _bytes(_split(rules.QWEN2))),
    "gemma 2": (
        "Gemma2Config",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "tie_word_embeddings": True},
        _characters,
    ),
    "gemma 3": (
        "Gemma3TextConfig",
        {
            "num_hidden_layers": 6,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 8,
            "tie_word_embeddings": True,
        },
        _characters,
    ),
}


def make_family(name: str, folder: Path) -> Path:
    """Write a tiny base of one family into `folder` and return it."""
    import torch
    import transformers

    kind, settings, raw = FAMILIES[name]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw(), bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = getattr(transformers, kind)(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **{**SMALL, **ids, **settings}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or "bias" in parameter_name:  # as made they are all 1 or 0, and hide mistakes
                torch.nn.init.normal_(parameter, 0.0 if "bias" in parameter_name or "gemma" in name else 1.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["model_type"]
    return folder
