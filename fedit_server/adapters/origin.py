"""An exported folder's lineage and signature: written beside the adapter, and checked without a network."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest
from fedit_protocol.lineage import LINEAGE, SIGNATURE, Lineage, Made, Origin, Step, check_origin, lineage_bytes, prove
from fedit_server.home.files import storing, write_atomically
from fedit_server.home.folder import Identity
from fedit_server.storage.lineages import VersionRow

_READABLE: Final = 0o644


def steps_of(versions: Sequence[VersionRow], documents: dict[int, Digest]) -> tuple[Step, ...]:
    """Return the lineage of these versions, oldest first; `documents` are the digests by version of the task.

    A round that is named again was gone back to. The start, which no round made, is of the task's first version.
    """
    first = documents[min(documents)]
    seen: set[int] = set()
    steps = []
    for row in versions:
        made = Made.ROLLBACK if row.round_no in seen else Made.ROUND if row.round_no else Made.FIRST
        seen.add(row.round_no)
        steps.append(
            Step(
                version=row.version,
                digest=row.digest,
                parent_digest=Digest(row.parent_digest),
                made=made,
                round_no=row.round_no,
                result=row.result if made is Made.ROUND and row.result else "",
                document=first if row.task_version is None else documents[row.task_version],
            )
        )
    return tuple(steps)


def sign_folder(folder: Path, lineage: Lineage, identity: Identity, at: int) -> None:
    """Write `lineage.json`, and the signature over every file of the folder."""
    write_atomically(folder / LINEAGE, lineage_bytes(lineage), mode=_READABLE)
    files = file_digests(folder)
    proof = prove(identity.keys.server, identity.descriptor_bytes, identity.successions, lineage, files, at)
    write_atomically(folder / SIGNATURE, proof, mode=_READABLE)


def check_folder(folder: Path, pin: Digest | None) -> Origin:
    """Check an exported folder; raises ConfigError C121 where it is none, SecurityError T121, T122."""
    if not (folder / LINEAGE).is_file() or not (folder / SIGNATURE).is_file():
        raise ConfigError(
            f"{folder} holds no {LINEAGE} with its {SIGNATURE}",
            code="C121",
            fix="name a folder that was exported: fedit-server adapter export --out FOLDER",
        )
    with storing(folder):
        return check_origin(
            (folder / SIGNATURE).read_bytes(), (folder / LINEAGE).read_bytes(), file_digests(folder), pin
        )


def file_digests(folder: Path) -> dict[str, Digest]:
    """Return the digest of every file of a folder but the signature, by its path in there."""
    found = {}
    with storing(folder):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != folder / SIGNATURE:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(folder).as_posix()] = Digest(f"sha256:{digest}")
    return found
