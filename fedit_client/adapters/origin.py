"""Checks a folder that somebody exported from a server: every byte, every version before it, and who signed it."""

from pathlib import Path

from fedit_client.adapters.editions import file_digest
from fedit_client.home.durable import translating
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest
from fedit_protocol.lineage import LINEAGE, SIGNATURE, Origin, check_origin


def check_folder(folder: Path, pin: Digest | None) -> Origin:
    """Check an exported folder without a network; `pin` is of the federation that is trusted, None if none is.

    Raises ConfigError U127 where it is no exported folder, SecurityError T121 or T122, StorageError.
    """
    if not (folder / LINEAGE).is_file() or not (folder / SIGNATURE).is_file():
        raise ConfigError(
            f"{folder} holds no {LINEAGE} with its {SIGNATURE}, so nobody has signed for it",
            code="U127",
            fix="ask the organiser for a folder made by: fedit-server adapter export --out FOLDER",
        )
    with translating(folder):
        proof, lineage = (folder / SIGNATURE).read_bytes(), (folder / LINEAGE).read_bytes()
        names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: file_digest(path) for name, path in names.items() if name != SIGNATURE}
    return check_origin(proof, lineage, files, pin)


def as_lines(origin: Origin) -> list[str]:
    """What a checked folder says, for people."""
    told, newest = origin.lineage, origin.newest
    lines = [
        f"version {newest.version} of {told.task_id} is as it was signed",
        f"checked: every file, and {len(told.steps)} versions, each made from the one before",
        f"base {told.base_model}, {told.base_digest}",
    ]
    if origin.vouched:
        return [*lines, f"signed by the federation that you trust, {origin.pin}"]
    return [*lines, f"whose federation that is nobody here can say: compare its pin, {origin.pin}"]


def as_data(origin: Origin) -> dict[str, object]:
    """The same as plain values, for programs."""
    told, newest = origin.lineage, origin.newest
    return {
        "task": told.task_id,
        "version": newest.version,
        "digest": newest.digest,
        "round": newest.round_no,
        "versions": len(told.steps),
        "base": {"model": told.base_model, "revision": told.base_revision, "digest": told.base_digest},
        "federation": told.federation_id,
        "pin": origin.pin,
        "vouched": origin.vouched,
        "signed_at": origin.at,
    }
