"""A Llama that is real in every part and small in all: two layers, random weights, a byte tokenizer, a chat template.

Made in about a second, without a download: what tests and the smallest experiments train. `make_tiny_llama(folder)`
gives what a client calls a base model.
"""

from pathlib import Path
from typing import Any, Final

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL: Final = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
MERGES: Final = [("t", "h"), ("th", "e"), ("Ċ", "Ċ"), (":", "Ċ"), ("o", "k"), ("e", "r")]
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
    named = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **named)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
