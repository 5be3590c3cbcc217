"""What a task must know of its base model: a digest over its files, and the shapes of its linear layers. No torch.

Shapes come from the headers of the safetensors files; the numbers behind them are hashed and never loaded.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fedit_protocol.base_files import WEIGHTS_ENDING, base_manifest, code_in, pinned
from fedit_protocol.base_shapes import BaseShapes, Shapes, read_shapes
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ModelError
from fedit_protocol.ids import Digest
from fedit_protocol.tensor_files import LENGTH_BYTES, header_length, read_header

_HASH_BLOCK: Final = 1024 * 1024
_TRANSPOSED: Final = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
"""Their layers are Conv1D: stored as (in, out) and adapted differently."""

_LIBRARY_FILES: Final = frozenset({"generation_config.json", "tokenizer_config.json"})
"""Beside config.json: what the libraries take instructions from."""


@dataclass(frozen=True)
class BaseModel:
    """One base model as files show it."""

    manifest: bytes
    """Its pinned files with their digests, as it is handed out."""
    shapes: BaseShapes
    size: int = 0
    """Bytes of the pinned files together."""

    @property
    def digest(self) -> Digest:
        """Of the manifest: what a task pins."""
        return digest_of(self.manifest)

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Module path → (out, in); embeddings and the head are left out."""
        return self.shapes.linear


def read_folder(folder: Path) -> BaseModel:
    """Read a base model from a folder; hashes every pinned file, so call it in a thread. Raises ModelError."""
    try:
        names = pinned(path.name for path in folder.iterdir() if path.is_file())
        digests = {name: hash_file(folder / name) for name in names}
        manifest = base_manifest(digests)
        size = sum((folder / name).stat().st_size for name in names)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        shapes: dict[str, tuple[int, ...]] = {}
        for name in names:
            if name.endswith(WEIGHTS_ENDING):
                shapes |= tensor_shapes(folder / name)
        for name in _LIBRARY_FILES.intersection(names):
            _check_code(json.loads((folder / name).read_bytes()), name, str(folder))
    except OSError as error:
        raise ModelError(f"the base model cannot be read: {error.strerror}", where=str(folder)) from error
    except ValueError as error:
        raise ModelError(
            f"this folder is no base model: {error}",
            code="M003",
            where=str(folder),
            fix="name a folder with config.json, tokenizer.json and *.safetensors",
        ) from error
    return replace(describe(manifest, config, shapes, str(folder)), size=size)


def describe(manifest: bytes, config: Mapping[str, Any], shapes: Shapes, where: str) -> BaseModel:
    """Combine manifest, config.json and shapes; raises ModelError M024 for a kind of model that is not supported."""
    _check_kind(config, where)
    _check_code(config, "config.json", where)
    return BaseModel(manifest, read_shapes(config, shapes))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a safetensors file; raises ValueError unless its header and size fit together."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = header_length(file.read(LENGTH_BYTES), size)
            entries = read_header(file.read(length), size - LENGTH_BYTES - length)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return {name: entry.shape for name, entry in entries.items()}


def hash_file(path: Path) -> Digest:
    """Return the SHA-256 digest of a file of any size."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            found.update(block)
    return Digest("sha256:" + found.hexdigest())


def _check_kind(config: Mapping[str, Any], where: str) -> None:
    architectures = config.get("architectures") or []
    reasons = (
        (config.get("model_type") in _TRANSPOSED, f"{config.get('model_type')} stores its layers transposed"),
        (
            bool(config.get("quantization_config")),
            "it is quantized already; FedIT quantizes an unquantized base itself",
        ),
        (
            not any(str(name).endswith("ForCausalLM") for name in architectures),
            f"its architecture is {', '.join(map(str, architectures)) or 'not stated'}, not a causal language model",
        ),
    )
    for refused, reason in reasons:
        if refused:
            raise ModelError(f"this base model is not supported: {reason}", code="M024", where=where)


def _check_code(content: object, name: str, where: str) -> None:
    if key := code_in(content):
        raise ModelError(
            f"this base model is not supported: {name} asks for code of its own ({key}), which no client runs",
            code="M024",
            where=where,
        )
