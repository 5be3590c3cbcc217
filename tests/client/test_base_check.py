"""What a base model's folder may hold: refused before anything of it is hashed, loaded or run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fedit_client.adapters.kept import check_adapter
from fedit_client.base.check import check_base, check_size
from fedit_client.base.model import resolve_base
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.base_files import code_in
from fedit_protocol.errors import ModelError

WEIGHTS = save({"model.norm.weight": np.ones(16, np.float32)})
GIB = 2**30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama", "_attn_implementation": "sdpa"}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_bytes(WEIGHTS)
    return base


def refused(folder: Path, code: str, most_bytes: int = GIB) -> str:
    """The words of the refusal; every one says what helps."""
    with pytest.raises(ModelError) as told:
        resolve_base(str(folder), "", folder.parent / "cache", most_bytes=most_bytes)
    assert told.value.code == code
    assert told.value.fix
    assert told.value.exit_code == 5
    return str(told.value)


def test_an_ordinary_base_passes_with_what_is_pinned_and_nothing_else(folder: Path) -> None:
    (folder / "README.md").write_text("# a model")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps("never opened"))
    (folder / "modeling_own.py").write_text("raise SystemExit")
    assert check_base(folder) == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "model.ckpt"])
def test_row_08_pickled_weights_are_refused_unopened(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"w": 1}))
    said = refused(folder, "M007")
    assert name in said
    assert "can run code" in said


def test_a_folder_without_weights_is_no_base(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "M001")


ASKS_FOR_CODE: dict[str, tuple[str, object]] = {
    "own classes": ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_own.Model"}}),
    "own classes in an inner table": ("config.json", {"text_config": {"auto_map": {"AutoConfig": "own.Config"}}}),
    "own classes in a list of tables": ("config.json", {"parts": [{"auto_map": {"AutoConfig": "own.Config"}}]}),
    "trust asked for": ("config.json", {"trust_remote_code": True}),
    "own pipelines": ("config.json", {"custom_pipelines": {"chat": {"impl": "own.Chat"}}}),
    "kernels from a hub": ("config.json", {"_attn_implementation": "kernels-community/flash-attn"}),
    "a quantization of its own": ("config.json", {"quantization_config": {"quant_method": "own"}}),
    "an own tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}),
    "own generation": ("generation_config.json", {"auto_map": {"generate": "own.generate"}}),
}


@pytest.mark.parametrize(("name", "content"), ASKS_FOR_CODE.values(), ids=ASKS_FOR_CODE)
def test_row_08_a_base_that_asks_for_code_is_refused(name: str, content: object, folder: Path) -> None:
    (folder / name).write_text(json.dumps(content))
    assert "none of it is ever run here" in refused(folder, "M007")


def test_words_that_only_look_like_code_are_not() -> None:
    assert (
        code_in({"auto_map": None, "attn_implementation": "sdpa", "trust_remote_code": False, "a": [1, "auto_map"]})
        is None
    )


BROKEN: dict[str, Callable[[Path], object]] = {
    "a cut file": lambda folder: (folder / "model.safetensors").write_bytes(WEIGHTS[:-1]),
    "bytes after the tensors": lambda folder: (folder / "model.safetensors").write_bytes(WEIGHTS + b"x"),
    "a pickle by another name": lambda folder: (folder / "model.safetensors").write_bytes(pickle.dumps([1] * 99)),
    "a header of a terabyte": lambda folder: (folder / "model.safetensors").write_bytes(
        (2**40).to_bytes(8, "little") + b"{}"
    ),
    "a lie in a second file": lambda folder: (folder / "more.safetensors").write_bytes(WEIGHTS.replace(b"64]", b"65]")),
    "an index that leads out of the folder": lambda folder: (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"model.norm.weight": "../../elsewhere.safetensors"}}'
    ),
    "an index that is a list": lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
    "a config that is no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a config without end": lambda folder: (folder / "config.json").write_text("[" * 100_000),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_files_that_lie_are_refused(spoil: Callable[[Path], object], folder: Path) -> None:
    spoil(folder)
    refused(folder, "M003")


def test_a_base_beyond_the_owners_limit_is_refused_with_the_command_that_lifts_it(folder: Path) -> None:
    whole = sum(path.stat().st_size for path in folder.iterdir())
    check_base(folder, whole)
    assert "this device's limit" in refused(folder, "M008", most_bytes=whole - 1)
    with pytest.raises(ModelError) as told:
        check_size(int(70.5 * GIB), 64 * GIB, "org/name")
    assert "policy set max_base_gib 71" in (told.value.fix or "")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_small_file_that_is_huge_is_refused_unread(name: str, folder: Path) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(200 * 2**20)
    assert name in refused(folder, "M008")


LAYOUT = AdapterLayout.of_lora({"model.layers.0.q_proj": (6, 4)}, ["q_proj"], 2)
ADAPTER = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in LAYOUT.tensors}
OTHER: dict[str, tuple[bytes, str]] = {
    "another type": (save({name: array.astype(np.float16) for name, array in ADAPTER.items()}), "M004"),
    "another shape": (save({name: array.T.copy() for name, array in ADAPTER.items()}), "M004"),
    "a tensor more": (save({**ADAPTER, "x": np.zeros(1, np.float32)}), "M004"),
    "a tensor less": (save(dict(list(ADAPTER.items())[:1])), "M004"),
    "a byte more": (save(ADAPTER) + b"x", "M003"),
    "a byte less": (save(ADAPTER)[:-1], "M003"),
    "a pickle": (pickle.dumps(ADAPTER), "M003"),
}


def test_an_adapter_of_exactly_the_layout_passes(tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").write_bytes(save(ADAPTER, metadata={"format": "pt"}))
    check_adapter(tmp_path / "adapter.safetensors", LAYOUT)


@pytest.mark.parametrize(("content", "code"), OTHER.values(), ids=OTHER)
def test_row_08_an_adapter_of_any_other_form_is_refused(content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").write_bytes(content)
    with pytest.raises(ModelError) as told:
        check_adapter(tmp_path / "adapter.safetensors", LAYOUT)
    assert told.value.code == code
