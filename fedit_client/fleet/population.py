"""Who lives in a fleet: a partition of one data set makes its clients, and the seed how fast each of them is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fedit_client.data import Source, read_records
from fedit_client.fleet.member import VirtualClient
from fedit_client.fleet.settings import FleetSettings
from fedit_client.fleet.speeds import parse_speeds
from fedit_client.partition import make_partition, parse_form, read_corpus, write_partition
from fedit_protocol.errors import FleetError

PARTITION: Final = "partition"
CLIENTS: Final = "clients"
MANIFEST: Final = "manifest.json"


def deal(source: Source, settings: FleetSettings, folder: Path) -> dict[str, Any]:
    """Partition the data into `folder`/partition, one file a client, and return the manifest.

    Raises FleetError F001 for fewer rows than clients, and DataError as `read_corpus` and `make_partition` do.
    """
    form = parse_form(settings.partition)
    with read_corpus(source, fields=form.fields) as corpus:
        if len(corpus) < settings.clients:
            raise FleetError(f"{len(corpus):,} rows cannot be shared by {settings.clients:,} clients: each needs one "
                             "or more", code="F001", where=settings.data,
                             fix="fedit-client fleet, with fewer --clients",
                             again=f"--clients {max(3, len(corpus) // 10)}")  # fmt: skip
        partition = make_partition(
            corpus, settings.partition, clients=settings.clients, seed=settings.seed, test_rows=settings.test_rows
        )
        return write_partition(corpus, partition, folder / PARTITION)


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
