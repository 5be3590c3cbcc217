"""Task files: what they become, and what each kind of mistake is told."""

import re
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.errors import ConfigError
from fedit_server.tasks.base_model import read_folder
from fedit_server.tasks.files import default_task, load_task, resolve, slug

from .bases import make_base, small_task

MINIMAL = 'id = "notes"\ntitle = "Notes"\n[base]\nmodel = "org/name"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "task.toml"
    path.write_text(text)
    return path


def test_a_minimal_file_is_a_task(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, MINIMAL))
    assert (task.label, task.base.model, task.round.cohort_size) == ("notes@1", "org/name", 3)


def test_a_base_folder_is_found_beside_the_file(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    task = load_task(write(tmp_path, MINIMAL.replace("org/name", "base")))
    assert task.base.model == str(base.resolve())


MISTAKES = {
    "not TOML": ("id = ", "C011", "not valid TOML"),
    "a key is missing": ('id = "notes"\n[base]\nmodel = "x"\n', "C013", "title: field required"),
    "an unknown key": (MINIMAL + "[hooks]\npre_train = 1\n", "C013", "hooks: this key does not exist"),
    "an unknown key in a section": (MINIMAL + "[adapter]\nrnak = 8\n", "C013", "adapter.rnak: this key does not exist"),
    "a value out of bounds": (MINIMAL + "[adapter]\nrank = 0\n", "C013", "adapter.rank: input should be greater"),
    "a word that is none": (
        MINIMAL.replace("[base]", '[base]\nquantization = "q4"'),
        "C013",
        "base.quantization: input should be 'nf4'",
    ),
    "a bad id": (MINIMAL.replace('"notes"', '"My Notes"'), "C013", "id: string should match"),
    "sizes the wrong way round": (
        MINIMAL + "[round]\ncohort_min = 5\ncohort_size = 4\n",
        "C013",
        "round: cohort_min = 5 exceeds cohort_size = 4",
    ),
    "two mistakes": (MINIMAL + "[adapter]\nrank = 0\nalpha = 0\n", "C013", "(and 1 more)"),
    "an infeasible cohort": (
        MINIMAL + "[round]\nthreshold = 4\n",
        "C020",
        "a cohort of 3 is infeasible",
    ),
    "a cohort that is infeasible only when full": (
        MINIMAL + "[round]\ncohort_min = 3\ncohort_size = 4\nmin_survivors = 3\nthreshold = 2\n",
        "C020",
        "a cohort of 4 is infeasible",
    ),
    "sketches of few": (
        MINIMAL + '[method]\nname = "fedit_rs"\n',
        "C020",
        "devices refuse fewer than 8: set round.cohort_min = 11 and cohort_size = 11, or take ffa_lora",
    ),
    "sketches of as few as are asked for": (
        MINIMAL + '[method]\nname = "fedit_rs1"\n[round]\ncohort_min = 9\ncohort_size = 9\nmin_survivors = 7\n',
        "C020",
        "says too much of 7 survivors, and devices refuse fewer than 8: leave out round.min_survivors",
    ),
    "ranks that nobody would send": (
        MINIMAL
        + '[method]\nname = "nested"\n[adapter]\nrank = 8\nranks = [4, 8]\n[round]\ncohort_min = 4\ncohort_size = 4\n',
        "C020",
        "no slice above rank 4 would ever be summed: set cohort_size = 5 or more",
    ),
    "a ring that is too wide": (
        MINIMAL + "[round]\ncohort_min = 3\ncohort_size = 128\n[encoding]\nvalue_bits = 16\nmax_weight = 1024\n",
        "C021",
        "32 is the widest",
    ),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_file_key_and_reason(case: tuple[str, str, str], tmp_path: Path) -> None:
    text, code, message = case
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as wrong:
        load_task(path)
    assert wrong.value.code == code
    assert message in str(wrong.value)
    assert str(path) in (wrong.value.where or "")


@pytest.mark.parametrize("method", ["flora", "flexlora", "fedex_lora"])
def test_what_is_named_instead_of_a_baseline_under_masks_is_a_task(method: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"take ffa_lora, .* or fedit_rs with") as refused:
        load_task(write(tmp_path, MINIMAL + f'[method]\nname = "{method}"\n'))
    load_task(write(tmp_path, MINIMAL + '[method]\nname = "ffa_lora"\n'))
    found = re.search(r"round\.(cohort_min = \d+) and (cohort_size = \d+)", str(refused.value))
    assert found
    for sizes, works in ((found.groups(), True), (("cohort_min = 10", "cohort_size = 11"), False)):
        path = write(tmp_path, MINIMAL + '[method]\nname = "fedit_rs"\n[round]\n' + "\n".join(sizes))
        if works:
            load_task(path)
        else:
            with pytest.raises(ConfigError, match="devices refuse fewer than 8"):
                load_task(path)


def test_a_missing_and_a_giant_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        load_task(tmp_path / "none.toml")
    assert (missing.value.code, missing.value.exit_code) == ("C010", 3)
    with pytest.raises(ConfigError) as giant:
        load_task(write(tmp_path, "#" * 300_000))
    assert giant.value.code == "C010"
    assert missing.value.fix == f"check the path: ls -l {tmp_path}"
    assert "fedit-server task schema" in (giant.value.fix or "")


def test_two_options_make_a_task() -> None:
    task = default_task("Qwen/Qwen3-4B", "Clinic notes")
    assert (task.id, task.title, task.base.model) == ("clinic-notes", "Clinic notes", "Qwen/Qwen3-4B")
    assert default_task("Qwen/Qwen3-4B", None).id == "qwen3-4b"


def test_titles_become_ids() -> None:
    assert slug("Müllers  Notizen!") == "mullers-notizen"
    assert slug("日本") == "task"
    assert len(slug("x" * 100)) == 63


def test_the_document_holds_digest_and_layout(base: Path) -> None:
    document = resolve(small_task(base), read_folder(base))
    assert document.task.base.digest == read_folder(base).digest
    assert [tensor.name.split(".")[-3:] for tensor in document.layout.tensors] == [
        ["q_proj", "lora_A", "weight"],
        ["q_proj", "lora_B", "weight"],
        ["v_proj", "lora_A", "weight"],
        ["v_proj", "lora_B", "weight"],
    ]
    assert (document.linear_parameters, document.other_parameters) == (64 + 32 + 128, 32 * 8 + 8)
    assert (document.hidden_size, document.layers) == (8, 1)
    assert document.base_bytes == sum(path.stat().st_size for path in base.iterdir())


def test_c050_a_rank_that_no_basis_of_a_layer_has_room_for_is_refused_with_one_that_fits(base: Path) -> None:
    task = small_task(base, adapter={"rank": 9}, top={"method": {"name": "fed_sb"}})
    with pytest.raises(ConfigError) as wrong:
        resolve(task, read_folder(base))
    assert wrong.value.code == "C050"
    assert wrong.value.fix == "set rank = 8 or less in the task file, under [adapter]"


NARROW: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "a sketch of two sums": (
        {"name": "fedit_rs", "sketch_rank": 5},
        {"rank": 2},
        "C023 method.sketch_rank = 5 exceeds the 4 outputs of",
        "set method.sketch_rank = 4 or less",
    ),
    "a sketch as wide as the adapter": (
        {"name": "fedit_rs1"},
        {"rank": 8},
        "C023 a sketch as wide as adapter.rank = 8 exceeds the 4 numbers on the shorter side of",
        "set method.sketch_rank = 4 or less",
    ),
    "rows of A": (
        {"name": "fedsvd", "refactor_every": 9},
        {"rank": 9},
        "C041 fedsvd cannot make 9 orthonormal rows of 8 inputs in",
        "set adapter.rank to 8 at most, or take ffa_lora",
    ),
}


@pytest.mark.parametrize("case", NARROW.values(), ids=NARROW)
def test_a_layer_that_is_too_narrow_for_the_method_is_refused_before_any_round(
    case: tuple[dict[str, Any], dict[str, Any], str, str], base: Path
) -> None:
    method, adapter, told, fix = case
    with pytest.raises(ConfigError) as wrong:
        resolve(small_task(base, adapter=adapter, top={"method": method}), read_folder(base))
    assert f"{wrong.value.code} {wrong.value}".startswith(told)
    assert wrong.value.fix == fix
    assert wrong.value.where == "notes@1"


def test_layers_that_are_just_wide_enough_are_taken(base: Path) -> None:
    for name, rank, sketch in (("fedit_rs", 2, 4), ("fedit_rs1", 2, 4), ("fedsvd", 8, 0)):
        task = small_task(base, adapter={"rank": rank}, top={"method": {"name": name, "sketch_rank": sketch}})
        assert resolve(task, read_folder(base)).task.method.name == name


def test_a_target_that_the_base_does_not_have_is_named_with_what_it_has(base: Path) -> None:
    task = small_task(base, adapter={"target_modules": ["q_proj", "gate_proj"]})
    with pytest.raises(ConfigError) as wrong:
        resolve(task, read_folder(base))
    assert wrong.value.code == "C014"
    assert "gate_proj; it has q_proj, up_proj, v_proj" in str(wrong.value)
