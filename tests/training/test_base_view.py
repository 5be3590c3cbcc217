"""The libraries see the pinned files of a base and nothing that lies beside them."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedit_client.base.model import digest_folder
from fedit_client.training.base_view import pinned_view
from fedit_client.training.model import attach_saved, load_base
from fedit_client.training.tokenizer import load_tokenizer
from fedit_protocol.base_files import pinned
from fedit_protocol.errors import ModelError

from ..tiny_llama import CHAT_TEMPLATE
from .rows import cpu

pytestmark = pytest.mark.training


@pytest.fixture
def beset(base: Path, tmp_path: Path) -> Path:
    """The same base, with files beside it that transformers would read by themselves, and one that kills."""
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"})
    )
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("another template")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps("never read"))
    (folder / "modeling_llama.py").write_text("raise SystemExit('code of the base ran')")
    return folder


def test_the_view_holds_the_pinned_files_and_is_gone_afterwards(beset: Path) -> None:
    with pinned_view(beset) as folder:
        assert sorted(path.name for path in folder.iterdir()) == pinned(path.name for path in beset.iterdir())
        assert (folder / "model.safetensors").samefile(beset / "model.safetensors")
    assert not folder.exists()
    assert (beset / "model.safetensors").exists()


def test_row_08_what_lies_beside_the_pinned_files_changes_nothing(beset: Path, base: Path) -> None:
    """Without the view an unpinned file would decide: its digest is that of the base all the same."""
    assert digest_folder(beset) == digest_folder(base)
    assert load_tokenizer(beset).get_chat_template() == CHAT_TEMPLATE
    model: Any = load_base(beset, cpu())
    assert model.config.model_type == "llama"


def test_a_base_is_held_against_the_rules_where_it_is_loaded_too(beset: Path) -> None:
    with (beset / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError) as told:
        load_base(beset, cpu())
    assert told.value.code == "M003"


def test_an_adapter_folder_without_safetensors_is_refused_before_its_pickle_is_tried(
    base: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ModelError) as told:
        attach_saved(load_base(base, cpu()), tmp_path)
    assert told.value.code == "M004"
