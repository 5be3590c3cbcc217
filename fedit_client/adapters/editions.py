"""What this device knows of each adapter version: `fedit.json` beside the tensors, and the model card made from it."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from fedit_client.home.durable import translating, write_atomic
from fedit_protocol.errors import MembershipError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.messages import Offer, RoundResult
from fedit_protocol.peft_folder import CARD, FACTORS, WEIGHTS, Edition, OwnLoss, model_card
from fedit_protocol.task import Task
from fedit_protocol.words import counted

FACTS: Final = "fedit.json"
_PUBLIC: Final = 0o644
_EDITIONS: Final = TypeAdapter(Edition)


@dataclass(frozen=True)
class KeptVersion:
    """One version on this device: its PEFT folder, and what is known of it."""

    version: int
    folder: Path
    edition: Edition

    def line(self) -> str:
        """The version in one line."""
        known = self.edition
        parts = [
            f"version {self.version}",
            f"round {known.round_no}" if known.round_no else "",
            f"summed over {counted(known.survivors, 'device')}" if known.survivors else "",
            f"loss {known.own.loss:.3f} on your own rows" if known.own else "",
            str(self.folder),
        ]
        return " · ".join(part for part in parts if part)


def kept_versions(adapters: Path, task_id: TaskId) -> list[KeptVersion]:
    """Return the complete versions of a task on this device, oldest first; raises StorageError."""
    with translating(adapters):
        found = [path for path in (adapters / task_id).glob("*") if path.name.isdigit() and (path / CARD).exists()]
    return [KeptVersion(int(path.name), path, edition_in(path)) for path in sorted(found, key=lambda p: int(p.name))]


def version_here(adapters: Path, task_id: TaskId, version: int | None = None) -> KeptVersion:
    """Return one version on this device, the newest if none is named; raises MembershipError J004 if it is not here."""
    kept = kept_versions(adapters, task_id)
    found = next((one for one in reversed(kept) if version in (None, one.version)), None)
    if found is None:
        here = ", ".join(str(one.version) for one in kept)
        what = "there is no adapter" if version is None else f"adapter version {version} is not"
        raise MembershipError(
            f"{what} on this device{' yet' if not kept else f'; here are {here}'}",
            code="J004",
            fix="fedit-client adapters pull" + ("" if version is None else f" {version}"),
        )
    return found


def edition_in(folder: Path) -> Edition:
    """Return what is known of the version in a folder: at the least its number and its digest."""
    with translating(folder):
        raw = (folder / FACTS).read_bytes() if (folder / FACTS).exists() else b""
    try:
        return _EDITIONS.validate_json(raw)
    except ValidationError:  # of before such files, or damaged: what can be seen is enough
        came = folder / FACTORS if (folder / FACTORS).exists() else folder / WEIGHTS
        return Edition(int(folder.name), file_digest(came))


def write_edition(folder: Path, task: Task, edition: Edition) -> None:
    """Keep what is known of a version, and write its model card anew."""
    write_atomic(folder / FACTS, _EDITIONS.dump_json(edition, indent=2) + b"\n", _PUBLIC)
    write_atomic(folder / CARD, model_card(task, edition).encode(), _PUBLIC)


def add_to_edition(folder: Path, task: Task, edition: Edition) -> None:
    """Write an edition, keeping what an earlier one of the same bytes knew and this one does not."""
    if (folder / FACTS).exists() and (before := edition_in(folder)).digest == edition.digest:
        told = {name: value for name, value in vars(edition).items() if value not in (None, "")}
        edition = replace(before, **told)
    write_edition(folder, task, edition)


def remember_own(folder: Path, task: Task, own: OwnLoss) -> None:
    """Keep what this device saw of a version on rows of its own, and put it on the card."""
    write_edition(folder, task, replace(edition_in(folder), own=own))


def own_losses(adapters: Path, task_id: TaskId) -> dict[int, OwnLoss | None]:
    """Return version → what this device saw of it on its own held-out rows, None for a version not yet measured."""
    return {kept.version: kept.edition.own for kept in kept_versions(adapters, task_id)}


def edition_of(offer: Offer, result: RoundResult) -> Edition:
    """Return what a committed round says of the version that it made."""
    spent = result.privacy
    return Edition(
        version=result.adapter_version,
        digest=result.adapter_digest,
        parent_digest=offer.adapter_digest,
        round_no=offer.round_no,
        survivors=result.survivors,
        epsilon=spent.total_epsilon if spent else None,
        delta=spent.delta if spent else None,
    )


def as_data(kept: KeptVersion) -> dict[str, object]:
    """A version as plain values, for programs."""
    return {**asdict(kept.edition), "folder": str(kept.folder)}


def file_digest(path: Path) -> Digest:
    """Return the digest of a file; raises StorageError."""
    with translating(path), path.open("rb") as file:
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
