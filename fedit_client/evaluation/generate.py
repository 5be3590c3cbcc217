"""Answers, token by token, from a cached forward pass; torch room."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fedit_client.training.tokenize import Ids

_REPLACEMENT = "\ufffd"
"""What a tokenizer prints for a character of which only the first bytes are there yet."""


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompt: Ids,
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    should_stop: Callable[[], bool],
) -> Iterator[str]:
    """Yield the answer to prompt ids (T,) in pieces of whole characters, until an end token, the limit or the stop."""
    random = torch.Generator(device=model.device).manual_seed(seed)
    ids, cache = torch.from_numpy(prompt)[None].to(model.device), None  # (1, T)
    ends, produced, printed = _end_ids(model, tokenizer), list[int](), 0
    model.eval()
    while len(produced) < max_tokens and not should_stop():
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token, cache = _choose(output.logits[0, -1], temperature, random), output.past_key_values
        if token in ends:
            break
        produced.append(token)
        ids = torch.tensor([[token]], device=model.device)
        text = tokenizer.decode(produced)
        if not text.endswith(_REPLACEMENT):
            yield text[printed:]
            printed = len(text)
    if rest := tokenizer.decode(produced)[printed:]:
        yield rest


def _choose(logits: torch.Tensor, temperature: float, random: torch.Generator) -> int:
    """The likeliest token at temperature 0, else one drawn from the softmax of logits (V,)."""
    if temperature <= 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits.float() / temperature, dim=-1), 1, generator=random))


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {tokenizer.eos_token_id, *(identifier for identifier in ids if identifier is not None)}
