"""`eval`: compare what rounds make with what was before, on rows of this device's own, until Ctrl-C or once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.joining import tell_rows
from fedit_client.data import OnError, Record, Source
from fedit_client.data.remembered import load_sources, read_here
from fedit_client.evaluation import WorkerEvaluator
from fedit_client.evaluation.comparing import Bench, Comparison, Counter, Evaluator
from fedit_client.events import Event
from fedit_client.hardware.device import DevicePlan, Machine
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.joined import Membership, keep_in_membership, require_membership
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.membership.trust import ServerAddress
from fedit_client.network.bandwidth import Bandwidth
from fedit_client.network.patience import Patience
from fedit_client.network.transport import HttpTransport
from fedit_client.records.contacts import note_server
from fedit_client.rounds.preparation import check_training_stack, choose_device, find_base, unplanned
from fedit_protocol.errors import DataError, MembershipError
from fedit_protocol.words import counted


@dataclass(frozen=True)
class EvaluationWishes:
    """What the owner said on the command line."""

    server: str | None = None
    data: tuple[Path, ...] = ()
    on_error: OnError = "stop"
    watch: bool = False


async def evaluate(
    config: ClientConfig, console: Console, wishes: EvaluationWishes, evaluator: Evaluator | None = None
) -> list[dict[str, Any]]:
    """Compare and report the newest candidate, or with `watch` each new one; return what was compared.

    An `evaluator` of its own decides how losses are computed, and no base model is looked for. Raises MembershipError
    J001, J002, J004, J005; ConsentError A003; DataError, DeviceError, ModelError, SecurityError.
    """
    membership = _joined(config, wishes.server)
    records = _records(config, wishes, console)
    document = membership.task_document
    if evaluator is None:
        plan, base = await _prepared(config, membership, console)
    else:
        plan, base = unplanned(document), Path(config.model or ".")
    folder = config.paths.cache / "candidates"
    bench = Bench(document, base, plan, records, folder, evaluator or WorkerEvaluator())
    key = load_or_create_identity(config.paths.identity_file)
    signer = (key, membership.federation.descriptor.federation_id)

    def tell(event: Event) -> None:
        console.say(event.text, style="dim")

    tls, bandwidth = membership.federation.tls(), Bandwidth.of(config.polite)
    note_server(config.paths.cache, membership.host, membership.port)
    line = HttpTransport(membership.host, membership.port, tls, signer, bandwidth, config.network.no_proxy)
    async with line as transport:
        pinned = PinnedDescriptor(membership.descriptor, lambda raw: _save_descriptor(config, raw))
        patience = Patience(tell, max_wait_s=config.network.max_wait_s)
        counter = Counter(key, transport, pinned, document, patience)
        await patience.insist(lambda: pinned.follow(transport))
        if not wishes.watch:
            return [await _once(counter, bench, console)]
        console.say("waiting for what rounds make; Ctrl-C ends", style="dim")
        return await _watch(counter, bench, console)


async def _once(counter: Counter, bench: Bench, console: Console) -> dict[str, Any]:
    candidate = await counter.newest(0)
    if candidate is None:
        raise MembershipError(
            "no round of the task has made an adapter yet", code="J004", fix="fedit-client eval --watch"
        )
    found = await bench.compare(candidate, counter.transport)
    became = "reported before" if candidate.reported else await _handed_in(counter, found)
    return _tell(console, found, became)


async def _watch(counter: Counter, bench: Bench, console: Console) -> NoReturn:
    newest = 0
    while True:
        candidate = await counter.wait(newest)
        newest = candidate.round_no
        if candidate.reported:
            continue  # by an earlier run of this watch
        found = await bench.compare(candidate, counter.transport)
        _tell(console, found, await _handed_in(counter, found))


async def _handed_in(counter: Counter, found: Comparison) -> str:
    return "reported" if await counter.report(found) else "decided before the report came"


def _tell(console: Console, found: Comparison, became: str) -> dict[str, Any]:
    """Show one comparison: a line for people, an object for programs."""
    candidate = found.candidate
    data = {
        "kind": "evaluated",
        "task": candidate.task_id,
        "round": candidate.round_no,
        "adapter_version": candidate.adapter_version,
        "digest": candidate.adapter_digest,
        "state": str(candidate.state),
        "loss_before": found.loss_before,
        "loss_after": found.loss_after,
        "rows": found.rows,
        "tokens": found.tokens,
        "categories": [category.model_dump() for category in found.categories],
        "became": became,
    }
    console.say(
        f"round {candidate.round_no}, adapter version {candidate.adapter_version} ({candidate.state}):"
        f" loss {found.loss_before:.4f} before, {found.loss_after:.4f} after, on {counted(found.rows, 'row')}; {became}"
    )
    if console.json:
        console.event(data)
    return data


def _joined(config: ClientConfig, server: str | None) -> Membership:
    """Return the membership, which must be at this server if one is named."""
    membership = require_membership(config.paths.membership_file)
    if server is not None:
        address = ServerAddress.parse(server)
        if (address.host, address.port) != (membership.host, membership.port):
            raise MembershipError(
                f"this device has joined {membership.host}:{membership.port}, not {address.host}:{address.port}",
                code="J002",
                fix="fedit-client --home DIR join --no-run --server 'fedit://…' --data FILE",
            )
    return membership


def _records(config: ClientConfig, wishes: EvaluationWishes, console: Console) -> tuple[Record, ...]:
    """Read the rows that were named, or those that this device had named when it joined."""
    named = [Source(str(path), on_error=wishes.on_error) for path in wishes.data]
    sources = named or load_sources(config.paths)
    if not sources:
        raise DataError("there are no rows to evaluate on", code="D020",
                        fix="fedit-client eval --data rows.jsonl", again="--data rows.jsonl")  # fmt: skip
    records: list[Record] = []
    for source in sources:
        rows = read_here(config.paths, source)
        tell_rows(console, source.place, rows)
        records.extend(rows.records)
    return tuple(records)


async def _prepared(config: ClientConfig, membership: Membership, console: Console) -> tuple[DevicePlan, Path]:
    check_training_stack(config.device)
    document = membership.task_document
    chosen = choose_device(document, Machine.here(), config.device, membership)
    model = config.model or membership.model
    return chosen, await find_base(document, model, config.paths.cache, config.limits, console.say)


def _save_descriptor(config: ClientConfig, raw: bytes) -> None:
    keep_in_membership(config.paths.membership_file, descriptor=raw)
