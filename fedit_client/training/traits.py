"""What a loaded model is found able to do, by trying it on a few tokens: no list of architectures can be complete."""

from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from peft import PeftModel

from fedit_client.training.attention import ROWS, Rows

_TOKENS: Final = 6
_TOLERANCE: Final = 0.05
"""Of the largest logit: far above rounding in bfloat16, far below what one foreign token changes."""


@dataclass(frozen=True)
class Traits:
    """`packs`: rows behind one another do not see each other. `plain_head`: logits are the head's product alone."""

    packs: bool
    plain_head: bool


_known: "WeakKeyDictionary[torch.nn.Module, Traits]" = WeakKeyDictionary()


def traits_of(model: Any) -> Traits:
    """Return what the model can do, tried once; a model that packs has our attention from then on."""
    if model not in _known:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            _known[model] = _tried(model)
        model.train(was_training)
    return _known[model]


def backbone_of(model: Any) -> Any:
    """Return the part that ends before the head; raises AttributeError where a model is not built so."""
    whole = _whole(model)
    return getattr(whole, whole.base_model_prefix)


def head_of(model: Any) -> Any:
    """Return the output layer, or None."""
    return model.get_output_embeddings()


def _whole(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _tried(model: Any) -> Traits:
    whole = _whole(model)
    ids = _ids(int(whole.get_input_embeddings().weight.shape[0]), model.device)
    alone = model(input_ids=ids[:, _TOKENS:], use_cache=False).logits.float()
    try:
        plain = head_of(model)(backbone_of(model)(input_ids=ids[:, _TOKENS:], use_cache=False).last_hidden_state)
        plain_head = _alike(plain.float(), alone)
    except (AttributeError, TypeError):
        plain_head = False
    return Traits(_packs(whole, model, ids, alone), plain_head)


def _packs(whole: Any, model: Any, ids: torch.Tensor, alone: torch.Tensor) -> bool:
    """Whether a row gives behind another what it gives alone; if not, the model keeps the attention that it had."""
    before = _attention_of(whole)
    try:
        whole.set_attn_implementation(ROWS)
        positions = torch.arange(_TOKENS, device=ids.device).repeat(2)[None]
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device)
        rows = Rows.of((_TOKENS, _TOKENS), ids.device)
        together = model(input_ids=ids, position_ids=positions, attention_mask=mask, rows=rows, use_cache=False).logits
        if _attention_of(whole) == ROWS and _alike(together[:, _TOKENS:].float(), alone):
            return True
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
        pass  # it takes no rows, or no attention but its own
    whole.set_attn_implementation(before)
    return False


def _attention_of(whole: Any) -> str:
    return str(whole.config._attn_implementation)  # noqa: SLF001 - transformers has no public name for it


def _ids(vocabulary: int, device: Any) -> torch.Tensor:
    """Two rows of unlike tokens behind one another, always the same."""
    drawn = np.random.default_rng(0).choice(vocabulary, 2 * _TOKENS, replace=vocabulary < 2 * _TOKENS)
    return torch.from_numpy(drawn.astype(np.int64))[None].to(device)


def _alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
