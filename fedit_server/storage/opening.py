"""Where blobs and uploads lie: in the data folder, in a shared folder, or in an S3-compatible store."""

from typing import Final

from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.storage import BlobStore
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.object_copies import ObjectCopies
from fedit_server.storage.object_store import ObjectBlobs, open_bucket
from fedit_server.storage.spool import Spool

S3: Final = "s3://"


def open_blobs(config: ServerConfig, home: Home) -> BlobStore:
    """Return the blobs of a server; raises ConfigError C100, C101."""
    if config.blobs.startswith(S3):
        return ObjectBlobs(open_bucket(config.blobs, config.blobs_credentials_file), config.blobs)
    return DiskBlobs(home.blobs)


def open_spool(config: ServerConfig, home: Home) -> Spool:
    """Return the uploads of a server's open rounds."""
    if config.copy_uploads and config.blobs.startswith(S3):
        return Spool(home.spool, ObjectCopies(open_bucket(config.blobs, config.blobs_credentials_file), config.blobs))
    return Spool(home.spool)
