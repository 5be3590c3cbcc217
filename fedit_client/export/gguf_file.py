"""`--to gguf` and `gguf-lora`: files of llama.cpp, through the `gguf` package's writer and its names of tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_client.export.families import Family, Values, family_of, figures_of
from fedit_client.export.merging import Base, Delta, check_fit
from fedit_client.export.precision import Floats, Precision, Stored, Survival, seen, stored
from fedit_client.export.tensors import OnTensor, no_news
from fedit_client.export.tokens import Tokens
from fedit_client.home.durable import translating
from fedit_protocol.errors import DeviceError, ModelError

_HEAD: Final = "lm_head.weight"
_BUFFER: Final = "rotary_emb.inv_freq"
_Q8_BLOCK: Final = 32
_FILE_TYPES: Final = {Precision.F32: 0, Precision.F16: 1, Precision.Q8_0: 7, Precision.BF16: 32}
_ITEM_BYTES: Final = {Precision.F32: 4.0, Precision.F16: 2.0, Precision.BF16: 2.0, Precision.Q8_0: 34 / 32}
_SUFFIXES: Final = (".weight", ".bias")
_QUANTIZATION_VERSION: Final = 2


@dataclass(frozen=True)
class About:
    """What a file says of itself: words, and where it comes from."""

    name: str
    description: str
    base_model: str
    licence: str = ""


@dataclass(frozen=True)
class Renamed:
    """A tensor of the base, its name in the file, and how it is stored there."""

    source: str
    name: str
    shape: tuple[int, ...]
    precision: Precision

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        return round(np.prod(self.shape, dtype=np.int64) * _ITEM_BYTES[self.precision])


def gguf_plan(base: Base, precision: Precision) -> list[Renamed]:
    """Return the tensors of such a file; raises DeviceError H005 without `gguf`, ModelError M010 for what it lacks."""
    names = _names(base, family_of(base))
    plan = []
    for source, entry in base.tensors.items():
        if source.endswith(_BUFFER) or (source == _HEAD and base.ties_head):
            continue
        plan.append(Renamed(source, names(source), entry.shape, _kept_in(entry.shape, precision)))
    return plan


def write_gguf(
    base: Base,
    delta: Delta,
    precision: Precision,
    about: About,
    path: Path,
    tokens: Tokens,
    on_tensor: OnTensor = no_news,
) -> Survival:
    """Write base, adapter and tokenizer as one file; return what the precision loses.

    Vectors stay in f32, as llama.cpp wants them. Raises ModelError M004, M010 to M012, StorageError.
    """
    check_fit(base, delta)
    family, survival = family_of(base), Survival()
    plan, figures = gguf_plan(base, precision), figures_of(family, base)
    factors = figures.pop("rope_freqs", None)
    with _writer(path, family, about) as writer:
        writer.add_file_type(_FILE_TYPES[precision])
        writer.add_quantization_version(_QUANTIZATION_VERSION)
        _add_figures(writer, family, figures, len(tokens.pieces))
        _add_tokens(writer, tokens)
        if factors is not None:
            _announce(writer, "rope_freqs.weight", factors.shape, Precision.F32)
        for tensor in plan:
            _announce(writer, tensor.name, tensor.shape, tensor.precision)
        _open(writer)
        if factors is not None:
            writer.write_tensor_data(factors)
        written, whole = 0, sum(tensor.size for tensor in plan)
        for tensor in plan:
            writer.write_tensor_data(_value(base, delta, family, tensor, survival))
            written += tensor.size
            on_tensor(written, whole)
    return survival


def write_lora(base: Base, delta: Delta, alpha: float, about: About, path: Path) -> None:
    """Write the adapter alone in f32, for `llama-server --lora`; raises ModelError M004, M010, StorageError."""
    check_fit(base, delta)
    family = family_of(base)
    names = _names(base, family)
    with _writer(path, family, about, kind="adapter") as writer:
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        arrays: list[Floats] = []
        for module in delta.paths:
            a, b = delta.factors(module)
            # Only what leaves the module is reordered; for a norm nothing is, and no adapter is on one.
            arrays += [a, family.arranged(f"{module}.weight", b, base.config)]
            for end, array in zip(("lora_a", "lora_b"), arrays[-2:], strict=True):
                _announce(writer, f"{names(f'{module}.weight')}.{end}", array.shape, Precision.F32)
        _open(writer)
        for array in arrays:
            writer.write_tensor_data(np.ascontiguousarray(array))


def _value(base: Base, delta: Delta, family: Family, tensor: Renamed, survival: Survival) -> Stored:
    change, weight = delta.of(tensor.source), base.read(tensor.source)
    if change is not None:
        survival.add(weight, change, lambda values: _seen(values, tensor))
        weight = weight + change
    return _stored(family.arranged(tensor.source, weight, base.config), tensor)


def _stored(values: Floats, tensor: Renamed) -> Stored:
    if tensor.precision is not Precision.Q8_0:
        return stored(np.ascontiguousarray(values), tensor.precision, tensor.name)
    gguf = _package()
    quantized: Stored = gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType.Q8_0)
    return quantized


def _seen(values: Floats, tensor: Renamed) -> Floats:
    array = _stored(values, tensor)
    if tensor.precision is not Precision.Q8_0:
        return seen(array, tensor.precision)
    gguf = _package()
    floats: Floats = gguf.quants.dequantize(array, gguf.GGMLQuantizationType.Q8_0)
    return floats


def _kept_in(shape: tuple[int, ...], precision: Precision) -> Precision:
    if len(shape) < 2:
        return Precision.F32
    return Precision.F16 if precision is Precision.Q8_0 and shape[-1] % _Q8_BLOCK else precision


def _names(base: Base, family: Family) -> Callable[[str], str]:
    gguf = _package()
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    known = gguf.get_tensor_name_map(architecture, int(base.config["num_hidden_layers"]))

    def name_of(source: str) -> str:
        found = known.get_name(source, try_suffixes=_SUFFIXES)
        if found is None:
            raise ModelError(
                f"the base has a tensor {source}, for which llama.cpp has no name",
                code="M010",
                where=str(base.folder),
                fix="fedit-client export --to merged, then convert with the tools of llama.cpp",
            )
        return str(found)

    return name_of


def _announce(writer: Any, name: str, shape: tuple[int, ...], precision: Precision) -> None:
    """Say what will come, before the first tensor is computed."""
    gguf = _package()
    kind = gguf.GGMLQuantizationType[precision.name]
    dtype = {Precision.F32: np.float32, Precision.F16: np.float16}.get(precision, np.uint16)
    size = round(np.prod(shape, dtype=np.int64) * _ITEM_BYTES[precision])
    writer.add_tensor_info(name, shape, np.dtype(dtype), size, raw_dtype=kind)


def _open(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


@contextmanager
def _writer(path: Path, family: Family, about: About, kind: str = "model") -> Iterator[Any]:
    with translating(path):
        writer: Any = _package().GGUFWriter(path, family.architecture)
        try:
            writer.add_type(kind)
            writer.add_name(about.name)
            writer.add_description(about.description)
            if about.licence:
                writer.add_license(about.licence)
            writer.add_base_model_count(1)
            writer.add_base_model_name(0, about.base_model)
            yield writer
        finally:
            writer.close()


def _add_figures(writer: Any, family: Family, figures: Values, vocabulary: int) -> None:
    for key, value in {"vocab_size": vocabulary, **figures}.items():
        name = f"{family.architecture}.{key}"
        match value:
            case str():
                writer.add_string(name, value)
            case float():
                writer.add_float32(name, value)
            case _:
                writer.add_uint32(name, int(value))


def _add_tokens(writer: Any, tokens: Tokens) -> None:
    writer.add_tokenizer_model(tokens.model)
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(list(tokens.pieces))
    writer.add_token_types(list(tokens.kinds))
    if tokens.scores:
        writer.add_token_scores(list(tokens.scores))
        writer.add_add_space_prefix(tokens.space_prefix)
    if tokens.merges:
        writer.add_token_merges(list(tokens.merges))
    for name, place in tokens.special:
        getattr(writer, f"add_{name}_token_id")(place)
    writer.add_add_bos_token(tokens.adds_bos)
    writer.add_add_eos_token(False)
    if tokens.template:
        writer.add_chat_template(tokens.template)


def _package() -> Any:
    """The `gguf` package, loaded when first used."""
    try:
        import gguf
    except ImportError as error:
        raise DeviceError("writing GGUF needs the package gguf, which is not installed", code="H005",
                          fix='pip install "fedit[train]"') from error  # fmt: skip
    return gguf
