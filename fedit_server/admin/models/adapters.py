"""Versions of the global adapter."""

from pydantic import Field

from fedit_server.admin.models.common import DigestHex, Listed, Reply


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
