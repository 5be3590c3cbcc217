"""What every peer of the training bench gets: the same rows, base, adapter, and learning rate."""

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedit_client.base.model import PACKAGED_MODEL
from fedit_client.data import Record, read_records
from fedit_client.demo.rows import client_rows
from fedit_client.training.tokenize import Example, tokenize
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.task import AdapterSpec, PromptSpec, TrainingSpec

ROOT = Path(__file__).resolve().parents[2]
RANDOM_VOCABULARY = 32000
"""Of the base of random weights, whose other sizes are those of Llama 2 7B."""


@dataclass(frozen=True)
class Setting:
    """One part of the bench, as it crosses to a process of its own; lengths in tokens, `data` a file of rows."""

    peer: str
    cuda: bool = False
    random_weights: bool = False
    layers: int = 32
    width: int = 4096
    quantization: str = "nf4"
    liger: bool = False
    checkpointing: bool = False
    """Of ours: the recipe and TRL decide for themselves."""
    rows: int = 24
    batch: int = 8
    micro: int = 8
    cutoff: int = 512
    rank: int = 16
    held_out: int = 16
    data: str = ""
    trl: str = ""
    base: str = ""

    def text(self) -> str:
        """The setting as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> "Setting":
        """The setting of a text."""
        return cls(**json.loads(text))

    @property
    def device(self) -> str:
        """Where it runs."""
        return "cuda:0" if self.cuda else "cpu"

    @property
    def shapes(self) -> dict[str, int]:
        """Sizes of the base of random weights."""
        heads = self.width // 128
        return {
            "vocab_size": RANDOM_VOCABULARY,
            "hidden_size": self.width,
            "intermediate_size": self.width * 43 // 16,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
        }

    @property
    def adapter(self) -> AdapterSpec:
        """The seed's example: all of attention, dropout 0.05."""
        targets = ("q_proj", "k_proj", "v_proj", "o_proj")
        return AdapterSpec(rank=self.rank, alpha=16, dropout=0.05, target_modules=targets)

    @property
    def training(self) -> TrainingSpec:
        """One pass over the rows."""
        return TrainingSpec(
            local_steps=0,
            epochs=1.0,
            batch_size=self.batch,
            micro_batch_size=self.micro,
            learning_rate=1e-3,
            schedule="constant",
            held_out_fraction=0.0,
        )


def data_file(named: str) -> Path | None:
    """The file that was named, else Dolly where the public data lie, else None for the packaged rows."""
    if named:
        return Path(named)
    folder = Path(os.environ.get("FEDIT_TEST_DATA") or ROOT.parent / "shared" / "data")
    inside = ROOT / "shared" / "data" / "dolly15k.jsonl"
    return next((file for file in (folder / "dolly15k.jsonl", inside) if file.is_file()), None)


def records(setting: Setting) -> list[Record]:
    """As many rows as are trained on and held out together, drawn from the file by a fixed seed."""
    count = setting.rows + setting.held_out
    file = data_file(setting.data)
    if file is None:
        with client_rows("client_a") as path:
            every = list(read_records(path).records)
    else:
        every = list(read_records(file).records)
    order = np.random.default_rng(0).permutation(len(every))
    return [every[order[place % len(every)]] for place in range(count)]


def examples(setting: Setting, tokenizer: Any) -> tuple[list[Example], list[Example]]:
    """Rows to train on and rows held out; the loss is over every token, as the seed's recipe has it.

    The 7B of random weights has no tokenizer: four characters are a token, named by their checksum.
    """
    rows = records(setting)
    if setting.random_weights:
        found = [_hashed(row, setting.cutoff) for row in rows]
    else:
        prompt = PromptSpec(template="alpaca", train_on_inputs=True, cutoff_tokens=setting.cutoff)
        found = list(tokenize(rows, tokenizer, prompt).examples)
    return found[: setting.rows], found[setting.rows :]


def _hashed(row: Record, cutoff: int) -> Example:
    text = "\n".join(message.content for message in row.messages)
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)][:cutoff]
    ids = np.array([1000 + zlib.crc32(piece.encode()) % (RANDOM_VOCABULARY - 1000) for piece in pieces], np.int64)
    return Example(ids, np.ones_like(ids))


def first_adapter(model: Any) -> dict[str, Any]:
    """The same first adapter for every peer: A uniform as PEFT draws it, B zero."""
    random, tensors = np.random.default_rng(0), {}
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            bound = 0.0 if "lora_B" in name else 1 / np.sqrt(parameter.shape[1])
            drawn = random.uniform(-1, 1, tuple(parameter.shape)) * bound
            tensors[name.replace(".default", "")] = drawn.astype(np.float32)
    return tensors


def base_folder(tiny: Path) -> Path:
    """SmolLM2 where it is in the client's cache; nothing is fetched for a bench, so a tiny Llama stands in."""
    import platformdirs

    from ..tiny_llama import make_tiny_llama

    folder = Path(platformdirs.user_cache_dir("fedit-client")) / "models" / PACKAGED_MODEL.replace("/", "--")
    return folder if folder.is_dir() else make_tiny_llama(tiny / "tiny")


def random_layout(setting: Setting) -> AdapterLayout:
    """The adapter's layout on the base of random weights."""
    linear = {
        f"model.layers.{layer}.self_attn.{name}": (setting.width, setting.width)
        for layer in range(setting.layers)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    return AdapterLayout.of_lora(linear, setting.adapter.target_modules, setting.rank)
