"""What a partition is: which client has which rows, which rows are for tests, and from what it was made."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedit_client.partition.corpus import CATEGORY, Indices

NO_ROWS: Indices = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class ClientRows:
    """One client's rows, sorted, and those of its own that it is only tested on."""

    name: str
    rows: Indices
    local_test: Indices = dataclasses.field(default_factory=lambda: NO_ROWS)


@dataclass(frozen=True)
class Partition:
    """A data set dealt to clients. No row is in two lists; `test` is with nobody; rows in no list are unused.

    `field` is the column by which heterogeneity is measured, `test_field` the one of which test rows are so many each.
    """

    form: str
    seed: int | None
    clients: tuple[ClientRows, ...]
    test: Indices
    data_digest: str
    field: str = CATEGORY
    test_field: str = CATEGORY
    parameters: Mapping[str, float | str] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over all lists: two partitions with one digest are the same, whoever made them."""
        lists = [[client.name, client.rows.tolist(), client.local_test.tolist()] for client in self.clients]
        text = json.dumps([self.data_digest, self.test.tolist(), lists], separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def used(self) -> int:
        """How many rows are in some list."""
        return len(self.test) + sum(len(client.rows) + len(client.local_test) for client in self.clients)


def client_names(count: int) -> list[str]:
    """Return `client_0` …, with as many digits as the last one needs, so that they sort."""
    width = len(str(count - 1))
    return [f"client_{number:0{width}d}" for number in range(count)]
