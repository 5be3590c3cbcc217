"""Base models read without torch: digest, shapes, and what is no base model."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from fedit_protocol.adapter import first_adapter
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, FeditError, ModelError, StorageError
from fedit_protocol.peft_folder import Edition, bucket, peft_config
from fedit_protocol.task import BaseModelSpec
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.tensors import from_safetensors, to_safetensors
from fedit_server.tasks.base_model import read_folder, tensor_shapes
from fedit_server.tasks.base_source import read_base
from fedit_server.tasks.files import resolve

from .bases import LINEAR, make_base, small_task


def test_linear_layers_are_found_and_embeddings_are_not(base: Path) -> None:
    found = read_folder(base)
    assert found.linear_shapes == {f"model.layers.0.{name}": shape for name, shape in LINEAR.items()}


def test_every_pinned_file_enters_the_digest(tmp_path: Path) -> None:
    digests = [read_folder(make_base(tmp_path / "a")).digest]
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = make_base(tmp_path / name)
        content = (folder / name).read_bytes()
        # Another number, for weights; one more space, for JSON.
        (folder / name).write_bytes(content[:-1] + b"@" if name.endswith(".safetensors") else content + b" ")
        digests.append(read_folder(folder).digest)
    folder = make_base(tmp_path / "b")
    (folder / "notes.txt").write_text("not pinned")
    assert len(set(digests)) == 4
    assert read_folder(folder).digest == digests[0]


BROKEN = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "M003"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "M003"),
    "a cut weights file": (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 20), "M003"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "M003"),
    "transposed layers": (lambda folder: make_base(folder, model_type="gpt2"), "M024"),
    "weights shorter than their header says": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1]),
        "M003",
    ),
    "code beside the config": (lambda folder: make_base(folder, auto_map={"AutoModel": "modeling.Evil"}), "M024"),
    "code beside the tokenizer": (
        lambda folder: (folder / "tokenizer_config.json").write_text(
            '{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'
        ),
        "M024",
    ),
    "quantized already": (lambda folder: make_base(folder, quantization_config={"bits": 4}), "M024"),
    "no language model": (lambda folder: make_base(folder, architectures=["BertModel"]), "M024"),
    "no stated kind": (lambda folder: make_base(folder, architectures=None), "M024"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_what_is_no_base_model(case: tuple[object, str], base: Path) -> None:
    spoil, code = case
    assert callable(spoil)
    spoil(base)
    with pytest.raises(ModelError) as wrong:
        read_folder(base)
    assert wrong.value.code == code


def test_a_header_that_claims_too_much_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="not a safetensors file"):
        tensor_shapes(path)


def test_where_a_base_is_looked_for(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    pinned = read_folder(base).digest
    assert read_base(BaseModelSpec.model_validate({"model": str(base)}), None).digest == pinned
    assert read_base(BaseModelSpec.model_validate({"model": "org/name", "digest": pinned}), base).digest == pinned
    refusals: dict[str, tuple[dict[str, str], Path | None, type[FeditError], str]] = {
        "another digest": ({"model": str(base), "digest": "sha256:" + "0" * 64}, None, ModelError, "M002"),
        "no such folder": ({"model": "./none"}, None, ModelError, "M001"),
        "offline and not cached": ({"model": "org/name-that-nobody-has"}, None, ModelError, "M001"),
        "--base is no folder": ({"model": "org/name"}, tmp_path / "none", ConfigError, "C012"),
    }
    for values, local, kind, code in refusals.values():
        with pytest.raises(kind) as refused:
            read_base(BaseModelSpec.model_validate(values), local)
        assert refused.value.code == code


def test_version_0_is_pefts_default_and_the_same_for_everybody(base: Path) -> None:
    layout = resolve(small_task(base), read_folder(base)).layout
    vector = first_adapter(layout, seed=3)
    tensors = layout.unflatten(vector)
    bound = 1 / np.sqrt(8)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            assert not tensor.any()
        else:
            assert 0.5 * bound < np.abs(tensor).max() <= bound
    assert to_safetensors(layout, vector) == to_safetensors(layout, first_adapter(layout, seed=3))
    assert to_safetensors(layout, vector) != to_safetensors(layout, first_adapter(layout, seed=4))
    assert np.array_equal(from_safetensors(layout, to_safetensors(layout, vector)), vector)


def test_a_damaged_adapter_is_not_loaded(base: Path) -> None:
    layout = resolve(small_task(base), read_folder(base)).layout
    with pytest.raises(StorageError):
        from_safetensors(layout, b"\x00" * 64)


def test_a_version_is_a_peft_folder(base: Path, tmp_path: Path) -> None:
    document = resolve(small_task(base), read_folder(base))
    task, layout = document.task, document.layout
    content = to_safetensors(layout, first_adapter(layout, 0))
    edition = Edition(version=3, digest=read_folder(base).digest, parent_digest="", round_no=4, survivors=3)
    for _ in range(2):  # again after a crash
        write_peft_folder(tmp_path / "notes" / "3", document, content, edition)
    assert sorted(path.name for path in (tmp_path / "notes" / "3").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["3"]
    assert load_file(tmp_path / "notes" / "3" / "adapter_model.safetensors").keys() == load(content).keys()
    card = (tmp_path / "notes" / "3" / "README.md").read_text()
    assert "Round 4" in card
    assert "3 to 9 devices" in card
    config = peft_config(task)
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (2, 16, "LORA")
    assert (config["target_modules"], config["task_type"]) == (["q_proj", "v_proj"], "CAUSAL_LM")


def test_a_version_that_is_built_from_less_has_both_files(base: Path, tmp_path: Path) -> None:
    document = resolve(small_task(base, top={"method": {"name": "fed_sb"}}), read_folder(base))
    state = np.arange(document.layout.size, dtype=np.float32)
    content = to_safetensors(document.layout, state)
    write_peft_folder(tmp_path / "1", document, content, Edition(1, digest_of(content)))
    assert (tmp_path / "1" / "factors.safetensors").read_bytes() == content
    built = from_safetensors(document.built, (tmp_path / "1" / "adapter_model.safetensors").read_bytes())
    assert np.array_equal(built, built_adapter(document, state))


def test_counts_on_a_card_are_coarse() -> None:
    assert [bucket(count) for count in (3, 9, 10, 128)] == ["3 to 9", "3 to 9", "10 to 19", "100 to 128"]


@pytest.mark.training
def test_plain_peft_loads_the_folder(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(shape)
    model.save_pretrained(tmp_path / "base")
    task = small_task(tmp_path / "base")
    document = resolve(task, read_folder(tmp_path / "base"))
    layout = document.layout
    vector = (np.arange(layout.size) / layout.size).astype(np.float32)
    edition = Edition(
        version=1, digest=read_folder(tmp_path / "base").digest, parent_digest="", round_no=1, survivors=3
    )
    write_peft_folder(tmp_path / "adapter", document, to_safetensors(layout, vector), edition)
    loaded = PeftModel.from_pretrained(model, str(tmp_path / "adapter"))
    for name, parameter in loaded.named_parameters():
        if "lora_" in name:
            expected = layout.unflatten(vector)[name.replace(".default", "")]
            assert torch.equal(parameter, torch.from_numpy(expected))
