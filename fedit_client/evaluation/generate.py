"""Answers, token by token, from a cached forward pass, or whole by beam search; torch room."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fedit_client.evaluation.sampling import Sampling
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
    sampling: Sampling,
    should_stop: Callable[[], bool],
) -> Iterator[str]:
    """Yield the answer to prompt ids (T,) in pieces of whole characters, until an end token, the limit or the stop."""
    if sampling.beams > 1:
        yield _by_beams(model, tokenizer, prompt, max_tokens, sampling, should_stop)
        return
    random = torch.Generator(device=model.device).manual_seed(sampling.seed)
    ids, cache = torch.from_numpy(prompt)[None].to(model.device), None  # (1, T)
    ends, produced, printed = _end_ids(model, tokenizer), list[int](), 0
    model.eval()
    while len(produced) < max_tokens and not should_stop():
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token, cache = _choose(output.logits[0, -1], sampling, random), output.past_key_values
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


def _choose(logits: torch.Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """The likeliest token at temperature 0, else one drawn from the softmax of logits (V,) or its likeliest part."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    scaled, places = (logits.float() / sampling.temperature).sort(descending=True)
    shares = torch.softmax(scaled[: sampling.top_k or None], dim=-1)
    before = shares.cumsum(-1) - shares  # what all likelier ones have together; the likeliest always stays
    drawn = torch.multinomial(shares * (before < sampling.top_p), 1, generator=random)
    return int(places[drawn])


def _by_beams(
    model: Any, tokenizer: Any, prompt: Ids, max_tokens: int, sampling: Sampling, should_stop: Callable[[], bool]
) -> str:
    """Return the likeliest of the answers that a beam search finds, by transformers' own."""
    ids = torch.from_numpy(prompt)[None].to(model.device)
    draws = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    torch.manual_seed(sampling.seed)
    model.eval()
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        num_beams=sampling.beams,
        do_sample=sampling.temperature > 0,
        **(draws if sampling.temperature > 0 else dict.fromkeys(draws)),
        eos_token_id=sorted(_end_ids(model, tokenizer)),
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        stopping_criteria=[lambda ids, _: torch.full((len(ids),), should_stop(), device=ids.device)],
    )
    return str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {tokenizer.eos_token_id, *(identifier for identifier in ids if identifier is not None)}
