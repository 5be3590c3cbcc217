"""Who lives in a fleet: a partition of one data set makes its clients, and the seed how fast each of them is."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fedit_client.data import Source, read_records
from fedit_client.fleet.member import VirtualClient
from fedit_client.fleet.settings import FleetSettings
from fedit_client.fleet.speeds import parse_speeds
from fedit_client.partition import Form, make_partition, parse_form, read_corpus, write_partition
from fedit_protocol.errors import DataError, FleetError

PARTITION: Final = "partition"
CLIENTS: Final = "clients"
MANIFEST: Final = "manifest.json"
_AT_RANDOM: Final = "iid"
_OF_PARTITIONS: Final = frozenset({"D040", "D041", "D042", "D043"})


def deal(source: Source, settings: FleetSettings, folder: Path) -> dict[str, Any]:
    """Partition the data into `folder`/partition, one file a client, and return the manifest.

    Raises FleetError F001 for fewer rows than clients, and DataError as `read_corpus` and `make_partition` do.
    """
    with _naming_own_options():
        form = parse_form(settings.partition)
        with read_corpus(source, fields=form.fields) as corpus:
            _check_rows(len(corpus), settings, form)
            partition = make_partition(
                corpus, form, clients=settings.clients, seed=settings.seed, test_rows=settings.test_rows
            )
            return write_partition(corpus, partition, folder / PARTITION)


def _check_rows(rows: int, settings: FleetSettings, form: Form) -> None:
    """Raise FleetError F001 for fewer rows than clients; only at random is a row for each of them sure."""
    if rows >= settings.clients:
        return
    again = f"--clients {rows}" + ("" if form.kind == _AT_RANDOM else f" --partition {_AT_RANDOM}")
    raise FleetError(f"{rows:,} rows cannot be shared by {settings.clients:,} clients: each needs one or more",
                     code="F001", where=settings.data, fix=f"fedit-client fleet {again}", again=again)  # fmt: skip


@contextmanager
def _naming_own_options() -> Iterator[None]:
    """Let what helps with a partition name the options of `fleet`, not those of `partition`."""
    try:
        yield
    except DataError as error:
        if error.again is not None and error.code in _OF_PARTITIONS:
            error.again = re.sub(r"--by\b", "--partition", error.again)
            error.fix = f"fedit-client fleet {error.again}"
        raise


def is_dealt(folder: Path) -> bool:
    """Say whether the clients' rows are here already: they are written all at once."""
    return (folder / PARTITION / MANIFEST).exists()


def population(manifest: dict[str, Any], settings: FleetSettings, folder: Path) -> Sequence[VirtualClient]:
    """Return the clients of a manifest with their rows, homes and speeds; raises DataError for a damaged file."""
    speeds = parse_speeds(settings.speeds)
    return [
        VirtualClient(
            number=number,
            name=client["name"],
            records=read_records(folder / PARTITION / client["file"]).records,
            home=folder / CLIENTS / client["name"],
            slowdown=speeds.slowdown(settings.seed, number),
        )
        for number, client in enumerate(manifest["clients"])
    ]
