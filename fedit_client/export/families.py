"""The families of models that llama.cpp runs and this exporter knows: figures, and how their weights are laid out.

Sources: llama.cpp's description of GGUF (docs/gguf.md of ggml), the architectures and keys of the `gguf` package, and
the configurations of transformers. What a configuration asks for and no rule here covers is refused, never guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from fedit_client.export.merging import Base
from fedit_client.export.precision import Floats
from fedit_protocol.errors import ModelError

Config = dict[str, Any]
Values = dict[str, Any]
"""Key of a GGUF file, without the architecture's name before it → a number; keys as `gguf.Keys` spells them."""


@dataclass(frozen=True)
class Family:
    """How one `model_type` of transformers becomes an architecture of llama.cpp."""

    architecture: str
    rotates_pairs: bool = False
    """llama.cpp rotates neighbouring coordinates of q and k here, transformers the two halves: rows are reordered."""
    norms_from_one: bool = False
    """transformers adds 1 to the norms' weights when it runs; llama.cpp wants it added in the file."""
    figures: Callable[[Config], Values] = lambda _: {}

    def arranged(self, name: str, array: Floats, config: Config) -> Floats:
        """Return a weight, bias or norm of the base as llama.cpp wants it; also right for the B factor of a LoRA."""
        if self.rotates_pairs and (heads := _heads_of(name, config)):
            return rotated(array, heads)
        if self.norms_from_one and name.endswith("norm.weight"):
            return array + np.float32(1)
        return array


def family_of(base: Base) -> Family:
    """Return the family of a base; raises ModelError M010 for one that is not known."""
    found = FAMILIES.get(base.family)
    if found is None:
        raise ModelError(
            f"the base is of the family {base.family}; GGUF is written for {', '.join(FAMILIES)}",
            code="M010",
            where=str(base.folder),
            fix="fedit-client export --to merged, then convert with the tools of llama.cpp",
        )
    return found


def rotated(array: Floats, heads: int) -> Floats:
    """Reorder the rows of a head from halves (x0 … y0 …) to pairs (x0 y0 x1 y1 …); (heads · dim, …) stays so."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def figures_of(family: Family, base: Base) -> Values:
    """Return what llama.cpp has to know of the base, by key; raises ModelError M010 for what it cannot run."""
    config = base.config
    heads = config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "attention.key_length": dim,
        "attention.value_length": dim,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": dim,
        **_rope(config, dim),
        **family.figures(config),
    }


def _heads_of(name: str, config: Config) -> int:
    """How many heads the rows of a q or k projection make up; 0 for every other tensor."""
    heads = int(config["num_attention_heads"])
    if ".q_proj." in name:
        return heads
    return int(config.get("num_key_value_heads") or heads) if ".k_proj." in name else 0


def _rope(config: Config, dim: int) -> Values:
    """Positions: transformers 5 keeps them in `rope_parameters`, older files in `rope_theta` and `rope_scaling`."""
    stated: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope: Config = stated.get("full_attention", stated)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    values: Values = {"rope.freq_base": float(theta)}
    match kind:
        case "default":
            return values
        case "linear":
            return {**values, "rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
        case "yarn":
            length = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
            scaling = {"type": "yarn", "factor": float(rope["factor"]), "original_context_length": int(length)}
            return {**values, **{f"rope.scaling.{key}": value for key, value in scaling.items()}}
        case "llama3":
            return {**values, "rope_freqs": _llama3_factors(rope, float(theta), dim)}
        case _:
            return _unknown(f"positions of the kind {kind}")


def _llama3_factors(rope: Config, theta: float, dim: int) -> Floats:
    """By what each frequency is divided in Llama 3.1: long waves by `factor`, short ones by 1, between them both."""
    waves = 2 * np.pi * theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) / waves
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _llama(config: Config) -> Values:
    if config.get("hidden_act", "silu") != "silu":
        _unknown(f"the activation {config['hidden_act']}")
    return {}


def _qwen(config: Config) -> Values:
    if config.get("use_sliding_window"):
        _unknown("sliding windows in a Qwen model")
    return _llama(config)


def _gemma2(config: Config) -> Values:
    _check_gemma(config, window_every=2)
    return {
        "attn_logit_softcapping": float(config["attn_logit_softcapping"]),
        "final_logit_softcapping": float(config["final_logit_softcapping"]),
        "attention.sliding_window": config["sliding_window"],
    }


def _gemma3(config: Config) -> Values:
    _check_gemma(config, window_every=6)
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    if config.get("attn_logit_softcapping") or config.get("final_logit_softcapping"):
        _unknown("capped logits in a Gemma 3 model")
    return {
        "attention.sliding_window": config["sliding_window"],
        "rope.freq_base_swa": float(local.get("rope_theta") or config.get("rope_local_base_freq") or 10000.0),
    }


def _check_gemma(config: Config, window_every: int) -> None:
    """llama.cpp has these in its code, not in the file."""
    dim = config.get("head_dim") or 256
    if config.get("query_pre_attn_scalar", dim) != dim:
        _unknown("attention that is scaled by another number than the width of a head")
    kinds = config.get("layer_types") or []
    full = [kind == "full_attention" for kind in kinds]
    if full != [(place + 1) % window_every == 0 for place in range(len(kinds))]:
        _unknown("layers with and without a window in another order")
    if config.get("use_bidirectional_attention"):
        _unknown("attention in both directions")


def _unknown(what: str) -> NoReturn:
    raise ModelError(f"the base has {what}, which this exporter does not know for GGUF", code="M010",
                     fix="fedit-client export --to merged, then convert with the tools of llama.cpp")  # fmt: skip


FAMILIES: Final[dict[str, Family]] = {
    "llama": Family("llama", rotates_pairs=True, figures=_llama),
    "qwen2": Family("qwen2", figures=_qwen),
    "qwen3": Family("qwen3", figures=_qwen),
    "gemma2": Family("gemma2", norms_from_one=True, figures=_gemma2),
    "gemma3_text": Family("gemma3", norms_from_one=True, figures=_gemma3),
}
