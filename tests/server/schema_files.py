"""The database file of every schema, as a server of that time left it: `python -m tests.server.schema_files` adds the
newest one when a migration was added. A file that is there is never made anew: migrations must read what there was.
"""

import gzip
import tempfile
from pathlib import Path
from typing import Final

from .test_migrations import REVISIONS, database, fill, upgrade_to

FOLDER: Final = Path(__file__).parent / "schemas"


def file_of(revision: str) -> Path:
    """Return where the file of a schema lies."""
    return FOLDER / f"{revision}.db.gz"


def unpack(revision: str, to: Path) -> Path:
    """Put a schema's database at `to`, and return it."""
    to.write_bytes(gzip.decompress(file_of(revision).read_bytes()))
    return to


def make_missing() -> list[Path]:
    """Write the files that are not there yet: for each schema up to the one before the newest."""
    FOLDER.mkdir(exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "fedit.db"
        for revision in REVISIONS[:-1]:
            with database(place) as connection:
                upgrade_to(connection, revision)
                fill(connection)
                connection.exec_driver_sql("VACUUM")
            if not file_of(revision).exists():
                file_of(revision).write_bytes(gzip.compress(place.read_bytes(), mtime=0))
                made.append(file_of(revision))
    return made


if __name__ == "__main__":
    for path in make_missing():
        print(path.name)  # noqa: T201  the list is the answer
