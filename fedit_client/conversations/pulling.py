"""`adapters pull`: one committed version from the server, without taking part in a round."""

from fedit_client.adapters.editions import KeptVersion, edition_in
from fedit_client.adapters.kept import AdapterShelf
from fedit_client.base.model import licence_of
from fedit_client.config import ClientConfig
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.joined import require_membership
from fedit_client.network.bandwidth import Bandwidth
from fedit_client.network.patience import Emit, Patience
from fedit_client.network.transport import HttpTransport, OnBytes, Transport
from fedit_client.records.contacts import note_server
from fedit_protocol.catalogue import AdapterInfo
from fedit_protocol.encoding import decode
from fedit_protocol.errors import MembershipError, ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import TaskId
from fedit_protocol.peft_folder import Edition


async def pull(config: ClientConfig, version: int | None, emit: Emit, on_bytes: OnBytes) -> KeptVersion:
    """Fetch a version of the joined task, the newest if none is named, and return where it lies now.

    Raises MembershipError J001, J007 for one that the server does not have; SecurityError, TransportError, ModelError
    as for the adapters of rounds.
    """
    membership = require_membership(config.paths.membership_file)
    document = membership.task_document
    key = load_or_create_identity(config.paths.identity_file)
    signer = (key, membership.federation.descriptor.federation_id)
    shelf = AdapterShelf(config.paths.adapters, document, licence_of(document.task.base.model))
    patience = Patience(emit, max_wait_s=config.network.max_wait_s)
    tls, bandwidth = membership.federation.tls(), Bandwidth.of(config.polite)
    note_server(config.paths.cache, membership.host, membership.port)
    line = HttpTransport(membership.host, membership.port, tls, signer, bandwidth, config.network.no_proxy)
    async with line as transport:
        return await pulled(transport, shelf, patience, document.task.id, version, on_bytes)


async def pulled(
    transport: Transport,
    shelf: AdapterShelf,
    patience: Patience,
    task_id: TaskId,
    version: int | None,
    on_bytes: OnBytes,
) -> KeptVersion:
    """Fetch a version through a transport; raises as `pull`."""
    path = f"/v1/tasks/{task_id}/adapter" + ("" if version is None else f"/{version}")
    try:
        info = decode(AdapterInfo, await patience.insist(lambda: transport.get(path)))
    except ProtocolError as error:
        if isinstance(error, SecurityError) or error.problem not in (ProblemType.UNKNOWN_BLOB, ProblemType.MALFORMED):
            raise
        raise MembershipError(f"the server has no adapter version {version} of {task_id}", code="J007",
                              fix="fedit-client adapters pull, for the newest one") from error  # fmt: skip
    if info.task_id != task_id or version not in (None, info.version):
        raise SecurityError(ProblemType.CONTEXT_MISMATCH, "the server shows an adapter that was not asked for")
    edition = Edition(info.version, info.digest, info.parent_digest, info.round_no)
    folder = await patience.insist(
        lambda: shelf.fetch(transport, info.version, info.digest, on_bytes, edition, info.state)
    )
    return KeptVersion(info.version, folder, edition_in(folder))
