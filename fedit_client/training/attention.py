"""Attention over packed rows: each token sees the tokens before it in its own row, and no other row.

Registered with transformers under the name `ROWS`. Without rows it is transformers' own scaled dot product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ROWS: Final = "fedit_rows"
"""The name of this attention in a model's configuration."""

_QUERIES: Final = 128
"""Queries of a row that are looked at together on a CPU: half of a long row's products are then never computed."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of a packed sequence end: `ends` int32 (R + 1,) on the device, from 0."""

    lengths: tuple[int, ...]
    ends: torch.Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device) -> "Rows":
        """Rows of these lengths, one behind the other."""
        return cls(lengths, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield begin and end of each row."""
        yield from pairwise((0, *accumulate(self.lengths)))


def rows_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    rows: Rows | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Return (1, N, H, D) for query (1, H, N, D) and key and value (1, G, N, D), G a divisor of H; float as given."""
    if rows is None:
        done, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
        return done, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = others.get("sliding_window") or 0
    if 0 < window < max(rows.lengths):
        return _each_row(query, key, value, rows, scale, window), None
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        blocks: Any = _Blocks.apply(query[0], key[0], value[0], rows, scale)  # type: ignore[no-untyped-call]  # torch's
        return blocks, None
    if _has_varlen(query):
        return _varlen(query, key, value, rows, scale), None
    return _each_row(query, key, value, rows, scale, 0), None


def _each_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scale: float, window: int
) -> torch.Tensor:
    """torch's own attention, row by row: exact everywhere, fast where rows are few."""
    group = query.shape[1] // key.shape[1]
    pieces = []
    for begin, end in rows.spans():
        near = _near(end - begin, window, query.device) if 0 < window < end - begin else None
        piece = scaled_dot_product_attention(
            query[:, :, begin:end],
            key[:, :, begin:end].repeat_interleave(group, 1),
            value[:, :, begin:end].repeat_interleave(group, 1),
            attn_mask=near,
            is_causal=near is None,
            scale=scale,
        )
        pieces.append(piece.transpose(1, 2))
    return torch.cat(pieces, dim=1)


def _near(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Which of the tokens before it a token sees in a sliding window; bool (length, length)."""
    place = torch.arange(length, device=device)
    back = place[:, None] - place[None, :]
    return (back >= 0) & (back < window)


def _has_varlen(query: torch.Tensor) -> bool:
    """FlashAttention's kernel for rows of unlike length: half precision, from Ampere on, torch 2.10 or later."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and _varlen_function() is not None
    )


@cache
def _varlen_function() -> Any:
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return varlen.varlen_attn


def _varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scale: float) -> torch.Tensor:
    function, longest = _varlen_function(), max(rows.lengths)
    known = signature(function).parameters
    # torch 2.10 says is_causal, later ones say it by the window.
    said: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        said["enable_gqa"] = True
    elif query.shape[1] != key.shape[1]:
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    if "scale" in known:
        said["scale"] = scale
    else:
        query = query * (scale * query.shape[-1] ** 0.5)
    flat = (part[0].transpose(0, 1) for part in (query, key, value))  # (N, heads, D)
    done: torch.Tensor = function(*flat, rows.ends, rows.ends, longest, longest, **said)
    return done[None]


class _Blocks(torch.autograd.Function):
    """Attention of bfloat16 rows on a CPU as plain products, which its bfloat16 instructions do best.

    Nothing is kept but the inputs: the probabilities are computed again on the way back, block by block.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scale: float
    ) -> torch.Tensor:
        """(H, N, D), (G, N, D), (G, N, D) → (1, N, H, D)."""
        ctx.save_for_backward(query, key, value)
        ctx.rows, ctx.scale = rows, scale
        heads, count, width = query.shape
        groups = key.shape[0]
        done = query.new_empty(1, count, heads, width)
        for begin, start, end in _blocks(rows):
            asked = _asked(query, start, end, groups, scale)
            seen = _probabilities(asked, key[:, begin:end], start - begin, end - start) @ value[:, begin:end]
            done[0, start:end] = seen.view(heads, end - start, width).transpose(0, 1)
        return done

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        """Gradients of the three inputs."""
        query, key, value = ctx.saved_tensors
        heads, _, width = query.shape
        groups = key.shape[0]
        by_head = grad[0].transpose(0, 1)  # (H, N, D)
        to_query = torch.empty_like(query)
        to_key, to_value = torch.zeros_like(key), torch.zeros_like(value)
        for begin, start, end in _blocks(ctx.rows):
            keys, values = key[:, begin:end], value[:, begin:end]
            asked = _asked(query, start, end, groups, ctx.scale)
            given = by_head[:, start:end].reshape(groups, -1, width)
            share = _probabilities(asked, keys, start - begin, end - start)
            to_value[:, begin:end] += share.transpose(1, 2) @ given
            inner = given @ values.transpose(1, 2)
            slope = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - torch has no other fused one
            scores = slope(inner, share, -1, share.dtype)
            to_key[:, begin:end] += scores.transpose(1, 2) @ asked
            to_query[:, start:end] = ((scores @ keys) * ctx.scale).view(heads, end - start, width)
        return to_query, to_key, to_value, None, None


def _blocks(rows: Rows) -> Iterator[tuple[int, int, int]]:
    """Yield each row's begin with begin and end of some of its queries: those see the keys from begin to end."""
    for begin, end in rows.spans():
        for start in range(begin, end, _QUERIES):
            yield begin, start, min(start + _QUERIES, end)


def _asked(query: torch.Tensor, start: int, end: int, groups: int, scale: float) -> torch.Tensor:
    """Queries of the heads that share keys behind one another: (G, H/G · queries, D), scaled."""
    return query[:, start:end].reshape(groups, -1, query.shape[-1]) * scale


def _probabilities(asked: torch.Tensor, keys: torch.Tensor, before: int, queries: int) -> torch.Tensor:
    """(G, H/G · queries, keys): 0 at keys after the query."""
    scores = asked @ keys.transpose(1, 2)
    scores.view(keys.shape[0], -1, queries, keys.shape[1]).add_(_later(before, queries, scores.dtype))
    return torch.softmax(scores, dim=-1)


@cache
def _triangle(dtype: torch.dtype) -> torch.Tensor:
    return torch.full((_QUERIES, _QUERIES), float("-inf"), dtype=dtype).triu(1)


def _later(before: int, queries: int, dtype: torch.dtype) -> torch.Tensor:
    """−∞ where a key comes after its query, else 0; only the block's own keys can."""
    own = _triangle(dtype)[:queries, :queries]
    return torch.nn.functional.pad(own, (before, 0)) if before else own


AttentionInterface.register(ROWS, rows_attention)
AttentionMaskInterface.register(ROWS, sdpa_mask)
