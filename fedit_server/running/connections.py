"""What thousands of connections need of the process: small read buffers, and enough file descriptors."""

import asyncio.sslproto
import contextlib
import sys
from typing import Final

READ_BYTES: Final = 32 * 1024
"""What a TLS connection sets aside for reading, twice the largest TLS record (RFC 8446, section 5.1).

asyncio takes 256 KiB for each, zeroed and so resident: 2.6 GB for ten thousand devices of which nearly all only wait.
An upload is read in smaller pieces for it.
"""

MOST_FILES: Final = 65_536
"""Three times what the connections may be (`most_connections`)."""


def spare_memory() -> None:
    """Let TLS connections that begin from now on keep READ_BYTES instead of asyncio's default."""
    asyncio.sslproto.SSLProtocol.max_size = READ_BYTES


def allow_many() -> None:
    """Raise this process's limit of open files towards MOST_FILES, as far as the system lets it; never lower it.

    Each connection is a file. Systems start programs with 1,024, and let them have far more if they ask.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    # macOS names no limit, and refuses what its kernel cannot give: a server with fewer files is better than none.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
