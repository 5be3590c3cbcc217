"""The personal adapter outside training: a PEFT folder for use, a line for its owner; and what compression puts off."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from fedit_client.adapters.editions import write_edition
from fedit_client.adapters.kept import own_folder
from fedit_client.adapters.personal import adapter_here, personal_line
from fedit_client.conversations.uninstalling import traces
from fedit_client.home.paths import Paths
from fedit_client.membership.leaving import forget
from fedit_client.records.own_part import LEFT, PersonalPart, read_left, write_left, write_personal
from fedit_protocol.errors import ConfigError, MembershipError
from fedit_protocol.ids import Digest
from fedit_protocol.peft_folder import CARD, WEIGHTS, Edition
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName, MethodSpec
from fedit_protocol.testing import two_sum_task

A, B = "layer.lora_A.weight", "layer.lora_B.weight"


def document_of(method: MethodName) -> TaskDocument:
    plain = two_sum_task(8, m=6, n=4, rank=2)
    return plain.model_copy(update={"task": plain.task.model_copy(update={"method": MethodSpec(name=method)})})


def with_version(folder: Path, document: TaskDocument) -> None:
    """Put version 3 of the shared adapter there: A of ones, B of zeros."""
    content = save({A: np.ones((2, 4), np.float32), B: np.zeros((6, 2), np.float32)})
    place = folder / document.task.id / "3"
    place.mkdir(parents=True)
    (place / WEIGHTS).write_bytes(content)
    write_edition(place, document.task, Edition(3, Digest("sha256:" + "0" * 64)))


def test_fedsas_adapter_is_the_newest_a_with_the_own_b(tmp_path: Path) -> None:
    document = document_of(MethodName.FEDSA)
    with_version(tmp_path, document)
    own = own_folder(tmp_path, document.task.id)
    write_personal(own, PersonalPart({B: np.full((6, 2), 2.0, np.float32)}, 2, 1.25))
    made = adapter_here(tmp_path, document, personal=True)
    tensors = load_file(made.folder / WEIGHTS)
    assert (made.version, float(tensors[A].min()), float(tensors[B].max())) == (3, 1.0, 2.0)
    assert "shared with nobody" in (made.folder / CARD).read_text("utf-8")
    line = personal_line(tmp_path, document)
    assert line is not None
    assert "trained beside version 2 · loss 1.250 on your own rows" in line
    assert adapter_here(tmp_path, document).folder.name == "3"  # the shared one is what it was


def test_dittos_adapter_is_all_its_own(tmp_path: Path) -> None:
    document = document_of(MethodName.DITTO)
    with_version(tmp_path, document)
    part = {A: np.full((2, 4), 5.0, np.float32), B: np.full((6, 2), 6.0, np.float32)}
    write_personal(own_folder(tmp_path, document.task.id), PersonalPart(part, 3, None))
    tensors = load_file(adapter_here(tmp_path, document, personal=True).folder / WEIGHTS)
    assert (float(tensors[A].max()), float(tensors[B].max())) == (5.0, 6.0)


def test_without_a_personal_adapter_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keeps no personal adapter") as none_of_it:
        adapter_here(tmp_path, document_of(MethodName.FEDAVG), personal=True)
    assert none_of_it.value.code == "C072"
    with pytest.raises(MembershipError, match="trained on this device yet"):
        adapter_here(tmp_path, document_of(MethodName.DITTO), personal=True)
    with pytest.raises(ConfigError, match="is no adapter") as mixture:
        adapter_here(tmp_path, document_of(MethodName.FEDALT), personal=True)
    assert mixture.value.code == "C073"
    with pytest.raises(ConfigError, match="no versions of it"):
        adapter_here(tmp_path, document_of(MethodName.DITTO), 3, personal=True)
    assert personal_line(tmp_path, document_of(MethodName.FEDAVG)) is None
    assert personal_line(tmp_path, document_of(MethodName.DITTO)) is None


def test_leaving_with_erase_takes_the_own_folder_along_and_says_so(tmp_path: Path) -> None:
    paths, document = Paths.under(tmp_path), document_of(MethodName.DITTO)
    own = own_folder(paths.adapters, document.task.id)
    write_personal(own, PersonalPart({A: np.ones((2, 4), np.float32), B: np.ones((6, 2), np.float32)}, 1, None))
    assert any(own.is_relative_to(trace.path) for trace in traces(paths, None) if trace.what == "adapters")
    assert "adapters" not in {gone.what for gone in forget(paths, erase=False)}
    assert own.exists()
    assert "adapters" in {gone.what for gone in forget(paths, erase=True)}
    assert not own.exists()


def test_a_rest_is_sent_within_five_missed_rounds_or_never(tmp_path: Path) -> None:
    assert read_left(tmp_path, 1) == {}
    write_left(tmp_path, 4, {"a": np.ones(3, np.float32)})
    assert oct((tmp_path / LEFT).stat().st_mode)[-3:] == "600"
    assert [list(read_left(tmp_path, version)) for version in (4, 5, 10, 11)] == [[], ["a"], ["a"], []]
    (tmp_path / LEFT).write_bytes(b"damaged")
    assert read_left(tmp_path, 5) == {}
