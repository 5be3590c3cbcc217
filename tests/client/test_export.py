"""Exports without torch: rounding to the bit, what is refused and why, nothing half, and what comes next."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedit_client.cli import invoke
from fedit_client.config import ClientConfig
from fedit_client.conversations.exporting import ExportWishes, Form, export, form_named
from fedit_client.data import Message, Role
from fedit_client.export.families import FAMILIES, rotated
from fedit_client.export.place import made_whole
from fedit_client.export.precision import Precision, Survival, narrowed, seen, stored, widened
from fedit_client.export.turns import Turns
from fedit_protocol.errors import ConfigError, FeditError, StorageError
from fedit_protocol.task import Template

from ..joined_home import joined_home
from ..tiny_llama import tiny_document, write_adapter

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "vocab_size": 6,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
PIECES = ["<s>", "</s>", "a", "b", "ab", "Ġ"]
TOKENIZER: dict[str, Any] = {
    "added_tokens": [{"id": place, "content": PIECES[place], "special": True} for place in (0, 1)],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "post_processor": None,
    "model": {"type": "BPE", "vocab": {piece: place for place, piece in enumerate(PIECES)}, "merges": [["a", "b"]]},
}
SETTINGS: dict[str, Any] = {"chat_template": "", "bos_token": "<s>", "eos_token": "</s>"}
Change = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]
"""Alters configuration, tokenizer and tensors of a base before they are written."""


def numpy_base(folder: Path, change: Change = lambda _config, _tokenizer, _tensors: None) -> Path:
    """A Llama of one layer and eight dimensions, made without torch."""
    random = np.random.default_rng(1)
    shapes = {
        "model.embed_tokens.weight": (6, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.k_proj.weight": (4, 8),
        "model.layers.0.self_attn.v_proj.weight": (4, 8),
        "model.layers.0.self_attn.o_proj.weight": (8, 8),
        "model.norm.weight": (8,),
    }
    tensors: dict[str, Any] = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    config, tokenizer = json.loads(json.dumps(CONFIG)), json.loads(json.dumps(TOKENIZER))
    change(config, tokenizer, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    files = {"config": config, "tokenizer": tokenizer, "tokenizer_config": SETTINGS}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), "utf-8")
    return folder


def home_with(folder: Path, base: Path, *, zero_b: bool = False, **sections: Any) -> ClientConfig:
    document = tiny_document(base, adapter={"rank": 2, "target_modules": ["q_proj", "v_proj"]}, **sections)
    adapter = write_adapter(document, folder / "adapter.safetensors", zero_b=zero_b)
    return joined_home(folder / "home", document, {1: adapter})


@pytest.fixture
def home(tmp_path: Path) -> ClientConfig:
    return home_with(tmp_path, numpy_base(tmp_path / "base"))


def refused(home: ClientConfig, form: str, **wishes: Any) -> FeditError:
    with pytest.raises(FeditError) as error:
        export(home, ExportWishes(Form(form), **wishes))
    assert error.value.fix
    return error.value


def test_bfloat16_is_rounded_to_nearest_and_ties_to_even() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = widened(bits)
    finite = np.isfinite(numbers)
    assert np.array_equal(narrowed(numbers[finite]), bits[finite])
    halves = np.array([1.00390625, 1.01171875, -1.00390625, 1.003907], np.float32)  # between two bfloat16 numbers
    assert widened(narrowed(halves)).tolist() == [1.0, 1.015625, -1.0, 1.0078125]
    assert np.isnan(widened(narrowed(np.array([np.nan, -np.nan], np.float32)))).all()
    assert np.isinf(widened(narrowed(np.array([3.4e38, -3.4e38], np.float32)))).all()


def test_how_much_survives_is_measured_against_the_exact_change() -> None:
    base, change = np.ones((4, 4), np.float32), np.full((4, 4), 1e-4, np.float32)
    kept, gone = Survival(), Survival()
    kept.add(base, change, lambda values: values)
    gone.add(base, change, lambda values: seen(stored(values, Precision.BF16, "w"), Precision.BF16))
    assert (kept.moved_share, gone.moved_share, gone.lost, gone.kept_norm) == (1.0, 0.0, 1.0, 0.0)
    assert kept.lost < 1e-3
    assert gone.line(Precision.BF16) == (
        "bf16 loses 100 % of the adapter (error relative to the exact change);"
        " 0 % of the adapted weights differ from the base's"
    )


def test_merged_weights_are_base_plus_scaled_product(home: ClientConfig, tmp_path: Path) -> None:
    made = export(home, ExportWishes(Form.MERGED))
    assert made.folder == home.paths.exports / "tiny-v1-merged-f32"
    base, merged = load_file(tmp_path / "base" / "model.safetensors"), load_file(made.folder / "model.safetensors")
    adapter = load_file(tmp_path / "adapter.safetensors")
    for name, array in merged.items():
        start = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        change = (
            16 / 2 * adapter[f"{start}B.weight"] @ adapter[f"{start}A.weight"] if f"{start}A.weight" in adapter else 0
        )
        assert np.allclose(array, base[name] + change, atol=1e-6), name
    assert {path.name for path in made.folder.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = (made.folder / "README.md").read_text()
    assert "AutoModelForCausalLM" in card
    assert 'library_name: "transformers"' in card


def test_a_sharded_base_stays_sharded(tmp_path: Path) -> None:
    base = numpy_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    names = sorted(tensors)
    (base / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for part, inside in parts.items():
        save_file({name: tensors[name] for name in inside}, base / part)
    weight_map = {name: part for part, inside in parts.items() for name in inside}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    made = export(home_with(tmp_path, base), ExportWishes(Form.MERGED, precision=Precision.F16))
    written = {part: load_file(made.folder / part) for part in parts}
    assert {part: sorted(inside) for part, inside in written.items()} == parts
    told = json.loads((made.folder / "model.safetensors.index.json").read_text())
    assert told["weight_map"] == weight_map
    assert told["metadata"]["total_size"] == sum(array.size * 2 for array in tensors.values())
    assert json.loads((made.folder / "config.json").read_text())["dtype"] == "float16"


def test_q_and_k_are_reordered_for_llama_cpp() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert rotated(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    llama, qwen = FAMILIES["llama"], FAMILIES["qwen2"]
    name = "model.layers.0.self_attn.q_proj.weight"
    assert llama.arranged(name, rows, CONFIG)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert qwen.arranged(name, rows, CONFIG) is rows
    assert FAMILIES["gemma2"].arranged("model.norm.weight", rows, CONFIG)[1, 0] == 2


@pytest.mark.training  # needs the package gguf
def test_a_lora_file_holds_both_factors_and_the_scale(home: ClientConfig) -> None:
    from gguf import GGUFReader

    made = export(home, ExportWishes(Form.GGUF_LORA))
    assert f"--home {home.home} export --to gguf --version 0 --out " in made.following[-2]
    assert made.following[-1].startswith("llama-server -m ")
    (file,) = made.folder.glob("*.gguf")
    reader = GGUFReader(file)
    assert {tensor.name: tensor.shape.tolist() for tensor in reader.tensors} == {
        "blk.0.attn_q.weight.lora_a": [8, 2],
        "blk.0.attn_q.weight.lora_b": [2, 8],
        "blk.0.attn_v.weight.lora_a": [8, 2],
        "blk.0.attn_v.weight.lora_b": [2, 4],
    }
    told = {name: reader.fields[name].contents() for name in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert told == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 16.0}


@pytest.mark.training  # needs the package gguf
def test_an_ollama_folder_says_how_it_talks(tmp_path: Path) -> None:
    home = home_with(tmp_path, numpy_base(tmp_path / "base"), prompt={"template": "alpaca_short"})
    made = export(home, ExportWishes(Form.OLLAMA))
    assert (made.folder / "Modelfile").read_text().splitlines() == [
        "FROM ./tiny-v1-ollama-f16.gguf",
        'TEMPLATE """{{ range .Messages }}{{ if eq .Role "user" }}### Instruction:',
        "{{ .Content }}",
        "",
        "### Response:",
        '{{ else if eq .Role "assistant" }}{{ .Content }}</s>{{ end }}{{ end }}"""',
        'PARAMETER stop """</s>"""',
        "PARAMETER num_ctx 2048",
    ]
    assert made.following[0] == f"ollama create tiny:v1 -f {made.folder / 'Modelfile'}"


def test_a_built_in_prompt_becomes_a_chat_template() -> None:
    turns = Turns.of_prompt(Template.ALPACA_SHORT, "</s>")
    messages = [Message(Role.USER, "Why?"), Message(Role.ASSISTANT, "So."), Message(Role.USER, "And?")]
    text = "### Instruction:\nWhy?\n\n### Response:\nSo.</s>### Instruction:\nAnd?\n\n### Response:\n"
    assert turns.render(messages) == text
    assert '"### Instruction:\\n" + message' in turns.as_jinja()


def _without_target(_config: Any, _tokenizer: Any, tensors: dict[str, Any]) -> None:
    tensors["model.layers.0.self_attn.q_proj.weight"] = np.zeros((16, 8), np.float32)


def _rope(config: dict[str, Any], _tokenizer: Any, _tensors: Any) -> None:
    config["rope_scaling"] = {"rope_type": "longrope"}


def _spare_tensor(_config: Any, _tokenizer: Any, tensors: dict[str, Any]) -> None:
    tensors["model.layers.0.mystery.weight"] = np.zeros((2, 2), np.float32)


def _wide(_config: Any, _tokenizer: Any, tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"][0] = 1e6
    tensors["model.embed_tokens.weight"][0, 0] = 1e6


def _split(_config: Any, tokenizer: dict[str, Any], _tensors: Any) -> None:
    pattern = {"Regex": "."}
    tokenizer["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


REFUSED: dict[str, tuple[str, Change, str]] = {
    "an unknown family": ("gguf", lambda config, _t, _w: config.update(model_type="mamba"), "M010"),
    "positions that llama.cpp may not know": ("gguf", _rope, "M010"),
    "another activation": ("gguf", lambda config, _t, _w: config.update(hidden_act="relu"), "M010"),
    "a tensor without a name there": ("gguf", _spare_tensor, "M010"),
    "numbers too large for f16": ("gguf", _wide, "M011"),
    "integers as weights": ("merged", lambda _c, _t, w: w.update(x=np.zeros(2, np.int32)), "M011"),
    "words cut by a rule of its own": ("gguf", _split, "M012"),
    "no BPE": ("gguf", lambda _c, tokenizer, _w: tokenizer["model"].update(type="Unigram"), "M012"),
    "more tokens than rows": ("gguf", lambda config, _t, _w: config.update(vocab_size=3), "M012"),
    "no chat template for a Modelfile": ("ollama", lambda _c, _t, _w: None, "M013"),
}


@pytest.mark.training  # needs the package gguf
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(case: tuple[str, Change, str], tmp_path: Path) -> None:
    form, change, code = case
    home = home_with(tmp_path, numpy_base(tmp_path / "base", change))
    assert refused(home, form).code == code
    assert not home.paths.exports.exists() or not list(home.paths.exports.iterdir())


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    home = home_with(tmp_path, numpy_base(tmp_path / "base"))
    numpy_base(tmp_path / "base", _without_target)
    home = home.model_copy(update={"model": str(tmp_path / "base")})
    assert refused(home, "merged").code == "M002"  # by its digest, before anything else


def test_wishes_that_contradict_each_other(home: ClientConfig) -> None:
    assert refused(home, "peft", precision=Precision.F16).code == "U001"
    assert refused(home, "merged", precision=Precision.Q8_0).code == "U001"
    error = refused(home, "peft", version=7)
    assert (error.code, error.fix) == ("J004", "fedit-client adapters pull 7")
    assert str(error) == "adapter version 7 is not on this device; here are 1"


def test_a_folder_that_holds_something_is_left_alone(home: ClientConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert refused(home, "peft", out=out).code == "U010"
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    assert export(home, ExportWishes(Form.PEFT, out)).folder == out  # an empty one will do


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error, made_whole(tmp_path / "deep" / "out", 2**60):
        pytest.fail("nothing should be written")
    assert error.value.code == "S020"
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt])
def test_an_interrupted_export_leaves_nothing(end: type[BaseException], tmp_path: Path) -> None:
    def begun() -> None:
        with made_whole(tmp_path / "out", 1) as folder:
            (folder / "half").write_text("half")
            raise end

    with pytest.raises(end):
        begun()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_swept_by_the_next(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive = f".fedit-export-{int(gone.stdout)}-x", f".fedit-export-{os.getpid()}-x"
    for name in (dead, alive):
        (tmp_path / name).mkdir()
    with made_whole(tmp_path / "out", 1):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive, "out"]


def test_a_peft_export_says_what_comes_next(
    home: ClientConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDIT_HOME", str(home.home))
    assert invoke(["export", "--to", "peft", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["version"] == 1
    assert told["next"] == [
        f"python -c \"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('{told['folder']}')\""
    ]
    kept = json.loads((Path(told["folder"]) / "adapter_config.json").read_text())
    assert (kept["r"], kept["revision"]) == (2, None)
    assert invoke(["export", "--to", "peft", "--out", told["folder"]]) == ConfigError("", code="U010").exit_code


@pytest.mark.parametrize(
    ("name", "meant"),
    [("transformers", "merged"), ("Llama.cpp", "gguf"), ("huggingface", "merged"), ("lora", "peft"), ("gguff", "gguf")],
)
def test_another_name_leads_to_the_form_that_is_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError) as told:
        form_named(name)
    assert (told.value.code, told.value.again) == ("U080", f"--to {meant}")
    assert [form_named(form) for form in Form] == list(Form)
