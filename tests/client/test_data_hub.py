"""Rows of the hub through `datasets`, tried on folders: no network, no code of a data set, nobody told of it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fedit_client.data import Shape, Source
from fedit_client.data.hub import dataset_rows, is_hub_id, plain_download
from fedit_client.data.own import OwnData
from fedit_client.data.remembered import read_here
from fedit_client.home.paths import Paths
from fedit_client.records.contacts import HUB, Contacts
from fedit_protocol.errors import DataError

PAIR = {"prompt": "Hello?", "completion": "Hello."}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_hub_id_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert all(is_hub_id(text) for text in ("org/name", "org/name:train", "org/name:train[:10%]"))
    assert not any(is_hub_id(text) for text in ("name", "/org/name", "./org/name", "a/b/c", "org/name:"))
    assert Source("org/name").is_hub
    assert not Source("folder/rows.jsonl").is_hub
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert not Source("org/name").is_hub


def test_a_data_set_is_read_by_the_library_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call that fetches from the hub, on a folder: no network, the cache in a folder of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(lines(PAIR, PAIR))
    (folder / "test.jsonl").write_bytes(lines(PAIR))
    notes: list[str] = []
    assert list(dataset_rows(str(folder), None, notes)) == [(1, PAIR), (2, PAIR)]
    assert notes == [f"split train of {folder}; left out: test"]
    assert list(dataset_rows(str(folder), "test", notes)) == [(1, PAIR)]
    with pytest.raises(DataError) as told:
        list(dataset_rows(str(folder), "validation", notes))
    assert told.value.code == "D024"


def test_a_data_set_is_asked_for_and_no_counter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` tells another host of each data set that is loaded from the hub, if it may."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    told: list[str] = []

    class Session:
        """What its counter is told with."""

        def head(self, url: str, **_: Any) -> None:
            told.append(url)

    monkeypatch.setattr(datasets.load, "get_session", Session)
    with plain_download(datasets):
        datasets.load.increase_load_count("org/name")
    assert told == []
    datasets.load.increase_load_count("org/name")
    assert len(told) == 1


def test_asking_the_hub_for_rows_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    paths = Paths.under(tmp_path)
    with pytest.raises(DataError):
        read_here(paths, Source("org/name"))
    assert [contact["purpose"] for contact in Contacts(paths.contacts_file).all().values()] == [HUB]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    paths.contacts_file.unlink()
    with pytest.raises(DataError):
        read_here(paths, Source("org/name"))
    assert not paths.contacts_file.exists()


def test_rows_that_were_read_in_one_way_are_not_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{**PAIR, "text": "Once."}, {**PAIR, "text": ""}])
    monkeypatch.setattr(datasets, "load_dataset", lambda _name, split: rows)
    own = OwnData(Paths.under(tmp_path))
    own.add_data("org/name", None, Shape.PROMPT_COMPLETION, "skip")
    own.add_data("org/name", None, Shape.TEXT, "skip")
    assert [record.is_text for record in own.records()] == [False, False, True]


def test_a_data_set_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder, ran = tmp_path / "evil", tmp_path / "ran"
    folder.mkdir()
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    with pytest.raises(DataError) as told:
        list(dataset_rows(str(folder), None, []))
    assert (told.value.code, ran.exists()) == ("D023", False)


def test_a_saved_data_set_is_a_folder_like_any_other(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([PAIR, PAIR]).save_to_disk(str(tmp_path / "saved"))
    assert len(Source(str(tmp_path / "saved")).read().records) == 2


def test_without_the_library_of_the_hub_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as told:
        Source("org/name").read()
    assert (told.value.code, told.value.fix) == ("D019", 'pip install "fedit[hub]"')
