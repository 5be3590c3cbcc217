"""Leave means leave: the server is told, then what was kept here is removed. Past sums cannot be undone."""

import shutil
import time
from pathlib import Path

from fedit_client.durable import translating
from fedit_client.membership import Membership
from fedit_client.paths import Paths
from fedit_client.transport import Transport
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ProblemType, ProtocolError, TransportError
from fedit_protocol.messages import Leave
from fedit_protocol.signing import Kind, SigningKey, seal


async def deregister(transport: Transport, key: SigningKey, membership: Membership) -> None:
    """Ask the server to forget this device; one that has forgotten it already is content. Raises TransportError."""
    context = federation_context(membership.federation.descriptor.federation_id)
    try:
        await transport.post("/v1/leave", seal(key, Kind.LEAVE, context, Leave(sent_at=int(time.time()))))
    except TransportError as error:
        error.fix = "try again later, or leave without telling the server: fedit-client leave --offline"
        raise
    except ProtocolError as error:
        if error.problem is not ProblemType.NOT_ENROLLED:
            raise


def forget(paths: Paths, *, erase: bool, new_key: bool = False) -> list[Path]:
    """Remove the membership, with `new_key` the identity, with `erase` everything; return what is gone."""
    gone = [paths.membership_file, paths.sources_file, paths.control_file, paths.now_file]
    if new_key and not erase:
        gone.append(paths.identity_file)  # journal and key log stay: what this device saw and answered still binds it
    if erase:
        gone += [paths.identity_file, paths.journal, paths.key_log, paths.adapters, paths.cache, paths.settings_file]
        gone += [paths.log, paths.checkpoints]
    removed = [path for path in gone if path.exists()]
    for path in removed:
        with translating(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed
