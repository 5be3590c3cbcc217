"""Versions of the global adapter."""

from pydantic import Field

from fedit_server.admin.models.common import Body, DigestHex, Listed, Reply


class AdapterVersion(Reply):
    """One version."""

    task: str
    version: int
    digest: DigestHex
    parent_digest: DigestHex
    round: int = Field(description="The round that it came from; 0 for version 0.")
    folder: str = Field(description="Where the server keeps a copy as a PEFT folder.")


class AdapterPage(Listed):
    """Versions of a task, newest first; `next` is a version."""

    adapters: tuple[AdapterVersion, ...]


class AdapterFile(Reply):
    """A file of a version's PEFT folder."""

    name: str
    size: int


class AdapterDetail(AdapterVersion):
    """One version with its files; `lineage.sig` among them is signed by the federation with this pin."""

    files: tuple[AdapterFile, ...]
    pin: DigestHex


class RolledBack(AdapterVersion):
    """The version that a rollback made."""

    content_of: int


class Pruning(Body):
    """Whether to remove, or only to look."""

    dry_run: bool = Field(False, description="Only say what would go.")


class PrunedVersion(Reply):
    """A version whose content is beyond its task's retention."""

    task: str
    version: int


class PrunedBlob(Reply):
    """A blob that nothing mentions."""

    digest: DigestHex
    bytes: int


class Pruned(Reply):
    """What went, or would go."""

    removed: bool
    versions: tuple[PrunedVersion, ...]
    blobs: tuple[PrunedBlob, ...]
    bytes: int
    rounds: int = Field(description="Of which it is forgotten who was in them.")
