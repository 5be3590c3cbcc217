"""A partition as JSON: what was dealt to whom, from which data, by which numbers; and back."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fedit_client.installed import installed_version
from fedit_client.partition.corpus import Corpus, Indices
from fedit_client.partition.meters import client_table, measured_labels, meters
from fedit_client.partition.result import ClientRows, Partition
from fedit_protocol.errors import DataError

SCHEMA: Final = "fedit.partition/1"
MANIFEST: Final = "manifest.json"
_TEST_NAMES: Final = ("global_test", "test")
_NAME: Final = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}")
_FIX: Final = "fedit-client partition DATA --like MANIFEST_OR_SPLIT_FILE --out DIR"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Client(_Strict):
    name: str
    rows: list[int]
    local_test: list[int] = []


class _Data(_Strict):
    digest: str


class _Test(_Strict):
    rows: list[int]


class _Manifest(_Strict):
    form: str
    seed: int | None
    field: str
    test_field: str
    parameters: dict[str, float | int | str]
    data: _Data
    test: _Test
    clients: list[_Client]


class _Published(_Strict):
    """The lists as others publish them: row numbers by client, and those of the test rows."""

    split: dict[str, list[int]]


def manifest_of(corpus: Corpus, partition: Partition, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest; `files` says where each client's rows, `test` and local tests were written."""
    labels = measured_labels(corpus, partition)
    table = client_table(labels, partition)
    return {
        "schema": SCHEMA,
        "form": partition.form,
        "seed": partition.seed,
        "parameters": dict(partition.parameters),
        "field": partition.field,
        "test_field": partition.test_field,
        "data": {"name": corpus.name, "digest": corpus.digest, "rows": len(corpus), "left_out": corpus.left_out},
        "digest": partition.digest,
        "meters": meters(corpus, partition).as_data(),
        "unused": len(corpus) - partition.used,
        "test": {"file": files.get("test"), "count": len(partition.test), "rows": partition.test.tolist()},
        "clients": [
            _client(client, counts, labels.names, files)
            for client, counts in zip(partition.clients, table, strict=True)
        ],
        "made_by": {"fedit": installed_version(), "numpy": np.__version__},
    }


def _client(
    client: ClientRows, counts: NDArray[np.int64], names: tuple[str, ...], files: Mapping[str, str]
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": client.name,
        "file": files.get(client.name),
        "count": len(client.rows),
        "categories": {name: int(count) for name, count in zip(names, counts, strict=True) if count},
        "rows": client.rows.tolist(),
    }
    if len(client.local_test):
        told |= {"local_test_file": files.get(f"{client.name}.test"), "local_test": client.local_test.tolist()}
    return told


def load_partition(path: Path, corpus: Corpus) -> Partition:
    """Read a manifest of ours, or a file `{"split": {"client_0": [row, …], …, "global_test": […]}}` of others.

    Raises DataError D045 for a file that is neither, or whose lists do not fit the rows, D046 where a manifest was made
    from other data.
    """
    found = _parsed(path)
    if isinstance(found, _Published):
        test = next((found.split[name] for name in _TEST_NAMES if name in found.split), [])
        lists = {name: rows for name, rows in found.split.items() if name not in _TEST_NAMES}
        partition = Partition(
            f"like:{path.name}", None, tuple(ClientRows(name, _rows(rows)) for name, rows in lists.items()),
            _rows(test), corpus.digest, parameters={"clients": len(lists)},
        )  # fmt: skip
    else:
        if found.data.digest != corpus.digest:
            raise DataError("the manifest was made from other rows than these", code="D046", where=str(path),
                            fix="give the data that its field data.name names, unchanged")  # fmt: skip
        clients = tuple(ClientRows(one.name, _rows(one.rows), _rows(one.local_test)) for one in found.clients)
        partition = Partition(found.form, found.seed, clients, _rows(found.test.rows), corpus.digest, found.field,
                              found.test_field, found.parameters)  # fmt: skip
    _check(partition, len(corpus), path)
    return partition


def _parsed(path: Path) -> _Manifest | _Published:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, f"it cannot be read: {error.strerror}") from error
    try:
        value = json.loads(content)
        is_ours = isinstance(value, dict) and value.get("schema") == SCHEMA
        return _Manifest.model_validate(value) if is_ours else _Published.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise _unreadable(path, f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "it is not JSON") from error


def _rows(numbers: list[int]) -> Indices:
    return np.sort(np.array(numbers, dtype=np.int64))


def _check(partition: Partition, rows: int, path: Path) -> None:
    lists = {"test rows": partition.test}
    for client in partition.clients:
        lists |= {client.name: client.rows, f"the local test of {client.name}": client.local_test}
    owner = np.full(rows, -1)
    for number, (name, held) in enumerate(lists.items()):
        if len(held) and not 0 <= held[0] <= held[-1] < rows:
            bad = int(held[0] if held[0] < 0 else held[-1])
            raise _unreadable(path, f"{name} has row {bad:,}, but the data has rows 0 to {rows - 1:,}")
        taken = held[owner[held] >= 0] if len(np.unique(held)) == len(held) else held[:-1][np.diff(held) == 0]
        if len(taken):
            raise _unreadable(path, f"row {int(taken[0]):,} is in two lists, or twice in {name}")
        owner[held] = number
    unfit = [client.name for client in partition.clients if not _NAME.fullmatch(client.name)]
    if unfit:
        raise _unreadable(path, f"{unfit[0]!r} cannot be the name of a client's file")
    empty = [client.name for client in partition.clients if not len(client.rows)]
    if empty or not partition.clients:
        raise _unreadable(path, f"{empty[0]} has no row" if empty else "it has no client")


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"this is no partition of these rows: {why}", code="D045", where=str(path), fix=_FIX)
