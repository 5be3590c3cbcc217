"""What a server offers: its tasks as published, and what each means for the owner of this device."""

from dataclasses import dataclass, field

from fedit_client.consent.terms import Consent, ConsentSummary, summarise
from fedit_client.membership.trust import Federation, ServerAddress
from fedit_client.network.transport import Transport
from fedit_client.records.payloads import Payload, example_payload
from fedit_protocol.catalogue import TaskList, TaskState
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, TaskRefusedError
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument


@dataclass(frozen=True)
class TaskOffer:
    """A task as this server publishes it: what the owner decides about."""

    summary: ConsentSummary
    document: TaskDocument
    federation: Federation
    raw: bytes = field(repr=False)

    @property
    def example_payload(self) -> Payload:
        """An invented upload of this task, of the form and size of a real one, to show before a yes."""
        return example_payload(self.document)

    def accept(self) -> Consent:
        """Say yes to this version of this task, on behalf of the owner."""
        return self.summary.accept()


async def fetch_task(federation: Federation, address: ServerAddress, wanted: str | None, limits: Limits) -> TaskOffer:
    """Fetch the named or the only task and hold it against the limits; nothing about this device is sent."""
    async with address.transport(federation.tls()) as transport:
        raw = await fetch_listed(transport, wanted)
    document = read_task(raw)
    return TaskOffer(summarise(document, federation.descriptor, limits), document, federation, raw)


async def fetch_listed(transport: Transport, wanted: str | None) -> bytes:
    """Return the document of the named or the only task as the server lists it now, not held against any limits."""
    return _chosen(decode(TaskList, await transport.get("/v1/tasks")), wanted)


def read_task(raw: bytes) -> TaskDocument:
    """Decode a task; one with settings that this client does not know is refused (K002), never guessed at."""
    try:
        return decode(TaskDocument, raw)
    except ProtocolError as error:
        raise TaskRefusedError(f"the task holds a setting that this client does not know: {error}", code="K002",
                               fix="pip install --upgrade fedit, if a newer client is expected") from error  # fmt: skip


def _chosen(tasks: TaskList, wanted: str | None) -> bytes:
    """Return the document of the task that was named, or of the only one that runs."""
    documents = [(read_task(listing.document).task, listing) for listing in tasks.tasks]
    if wanted is not None:
        named = [listing for task, listing in documents if wanted in (task.id, task.label)]
    else:
        named = [listing for _, listing in documents if listing.state == TaskState.ACTIVE]
        named = named or [listing for _, listing in documents]
    if len(named) == 1:
        return named[0].document
    labels = ", ".join(task.label for task, _ in documents)
    if not documents or not named:
        raise ProtocolError(ProblemType.UNKNOWN_TASK, f"the server has no such task; it has: {labels or 'none'}",
                            code="K007", fix="ask the organiser: fedit-server status")  # fmt: skip
    raise ConfigError(f"the server has several tasks: {labels}", code="U006", fix="fedit-client join --task ID",
                      again="\n".join(f"--task {task.id}" for task, _ in documents))  # fmt: skip
