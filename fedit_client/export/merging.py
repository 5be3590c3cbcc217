"""Base plus adapter in float32, one tensor at a time: W + (alpha / rank) · B A. Never on quantized weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_client.base.check import check_base
from fedit_client.export.precision import Floats, Precision, Stored
from fedit_client.export.tensors import TensorFile, precision_of
from fedit_client.home.durable import translating
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.base_files import WEIGHTS_ENDING, WEIGHTS_INDEX
from fedit_protocol.errors import ModelError
from fedit_protocol.peft_folder import CONFIG, FACTORS, WEIGHTS
from fedit_protocol.task import TaskDocument
from fedit_protocol.tensor_files import TensorEntry

_PREFIX: Final = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_HEAD: Final = "lm_head.weight"


class Base:
    """A base model's folder: its configuration, and its weights by name, from however many files."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError M001, M003, M007 like `check_base`, M010 if its weights are quantized."""
        self.folder = folder
        self.files = check_base(folder)
        with translating(folder):
            self.config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        self.shards = {name: TensorFile(folder / name) for name in self.files if name.endswith(WEIGHTS_ENDING)}
        self._home = {tensor: shard for shard in self._loaded_shards() for tensor in self.shards[shard].entries}

    def _loaded_shards(self) -> list[str]:
        """With an index transformers reads the files that it names and no others, else `model.safetensors` alone."""
        if WEIGHTS_INDEX in self.files:
            index = json.loads((self.folder / WEIGHTS_INDEX).read_bytes())
            return sorted(set(index["weight_map"].values()))
        return ["model.safetensors"] if "model.safetensors" in self.shards else sorted(self.shards)

    @property
    def family(self) -> str:
        """`model_type` of the configuration."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """Every tensor by name, file after file, each in the order of its bytes."""
        found: dict[str, TensorEntry] = {}
        for shard in dict.fromkeys(self._home.values()):
            found |= dict(sorted(self.shards[shard].entries.items(), key=lambda item: item[1].start))
        return found

    @property
    def precision(self) -> Precision:
        """What most of its numbers are stored in."""
        return precision_of(self.tensors.values())

    @property
    def loaded_shards(self) -> list[str]:
        """The files that its tensors lie in."""
        return list(dict.fromkeys(self._home.values()))

    def read(self, name: str) -> Floats:
        """Return one tensor in float32."""
        return self.shards[self._home[name]].read(name)

    def verbatim(self, name: str, precision: Precision) -> Stored | None:
        """Return one tensor as it lies in its file, if that is in this precision already."""
        return self.shards[self._home[name]].verbatim(name, precision)

    def text(self, name: str) -> Any:
        """Return a JSON file of the base, or None if it has none of this name."""
        if name not in self.files:
            return None
        with translating(self.folder / name):
            return json.loads((self.folder / name).read_bytes())

    @property
    def ties_head(self) -> bool:
        """Whether the output head is the embedding table, whatever the file holds."""
        return bool(self.config.get("tie_word_embeddings", False))


class Delta:
    """An adapter as changes of named weights."""

    def __init__(self, file: Path, layout: AdapterLayout, scale: float) -> None:
        """Take an adapter's float32 file; raises ModelError M003, M004 if it is not of this layout."""
        source = TensorFile(file)
        found = {name: (entry.dtype, entry.shape) for name, entry in source.entries.items()}
        if found != {tensor.name: ("F32", tensor.shape) for tensor in layout.tensors}:
            raise ModelError("the adapter is not of the shape that the task states", code="M004", where=str(file),
                             fix="fedit-client adapters pull")  # fmt: skip
        self._source, self.scale = source, scale
        self.paths = sorted(name.removeprefix(_PREFIX).removesuffix(_A) for name in source.entries if name.endswith(_A))

    def factors(self, path: str) -> tuple[Floats, Floats]:
        """Return A (rank, in) and B (out, rank) of one module, without the scale."""
        return self._source.read(f"{_PREFIX}{path}{_A}"), self._source.read(f"{_PREFIX}{path}{_B}")

    def of(self, weight: str) -> Floats | None:
        """Return the change of a weight, (out, in), or None for one that the adapter leaves alone."""
        path = weight.removesuffix(".weight")
        if path == weight or path not in self.paths:
            return None
        a, b = self.factors(path)
        return np.float32(self.scale) * (b @ a)


def delta_of(folder: Path, document: TaskDocument) -> Delta:
    """Return the change of a kept version, with its side delta; raises ModelError M003, M004."""
    spec = document.task.adapter
    if document.lora is not None or not (folder / FACTORS).exists():
        return Delta(folder / WEIGHTS, document.built, spec.alpha / spec.rank)
    with translating(folder):
        config = json.loads((folder / CONFIG).read_bytes())
    return Delta(folder / WEIGHTS, document.layout.at_rank(config["r"]), config["lora_alpha"] / config["r"])


def check_fit(base: Base, delta: Delta) -> None:
    """Raise ModelError M004 unless every weight that the adapter changes is one of the base, and one of its own."""
    entries = base.tensors
    for path in delta.paths:
        weight = f"{path}.weight"
        a, b = delta.factors(path)
        if weight not in entries or entries[weight].shape != (b.shape[0], a.shape[1]):
            raise ModelError(f"the adapter changes {path}, which this base does not have", code="M004",
                             where=str(base.folder), fix="fedit-client status, for the base of the task")  # fmt: skip
        if weight == _HEAD and base.ties_head:
            raise ModelError("the adapter changes a head that is the embedding too, so the two cannot be merged",
                             code="M004", where=str(base.folder), fix="fedit-client export --to peft")  # fmt: skip
