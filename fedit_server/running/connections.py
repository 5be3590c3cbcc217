"""What thousands of connections need of the process: small read buffers, and enough file descriptors."""

import asyncio.sslproto
import sys
from typing import Final

READ_BYTES: Final = 32 * 1024
"""What a TLS connection sets aside for reading, twice the largest TLS record (RFC 8446, section 5.1).

asyncio takes 256 KiB for each, zeroed and so resident: 2.6 GB for ten thousand devices of which nearly all only wait.
An upload costs a tenth more CPU time with this, for it is read in smaller pieces.
"""


def spare_memory() -> None:
    """Let TLS connections that begin from now on keep READ_BYTES instead of asyncio's default."""
    asyncio.sslproto.SSLProtocol.max_size = READ_BYTES


def allow_many() -> int | None:
    """Raise this process's limit of open files to what the system allows it; returns the limit, None if there is none.

    Each connection is a file. Systems start programs with 1,024, and let them have far more if they ask.
    """
    if sys.platform == "win32":
        return None
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard
