"""The messages and documents of a round."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from aiohttp import web

from fedit_protocol.collusion import MAX_COHORT
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey, RoundId, client_id
from fedit_protocol.sealed.collector import Collector
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects
from fedit_protocol.signing import Envelope, Kind
from fedit_server.access.auth import joiner
from fedit_server.rounds.driver import Driver, Machine
from fedit_server.routes.keys import COORDINATOR, DOORKEEPER, LOG_BOOK, TURNSTILE
from fedit_server.routes.wire import caller, cbor, done, read_body

_ROUND: Final = "/v1/rounds/{round_id:[0-9a-f]{32}}"

# What a message may have at most: an envelope of 256 bytes around its largest body (SPEC, section 7).
_MOST_JOIN_BYTES: Final = 2048
_MOST_SHARES_BYTES: Final = 512 + MAX_COHORT * 300
_MOST_ACK_BYTES: Final = 1024
_MOST_CONFIRM_BYTES: Final = 512
_MOST_UNMASK_BYTES: Final = 512 + MAX_COHORT * 40
_MOST_ABORT_BYTES: Final = 1024

Handler = Callable[[web.Request], Awaitable[web.Response]]
Take = Callable[[Aggregator, bytes, datetime], Effects]
Document = Callable[[Machine, IdentityKey, int], bytes]


def round_id(request: web.Request) -> RoundId:
    """Return the round that the path names."""
    return RoundId(request.match_info["round_id"])


def sum_index(request: web.Request) -> int:
    """Return the sum that the path names; raises ProtocolError (malformed)."""
    text = request.match_info["sum_index"]
    if text not in ("1", "2"):
        raise ProtocolError(ProblemType.MALFORMED, "a round has sums 1 and 2 at most")
    return int(text)


async def cohort_of(request: web.Request, received: bytes) -> Driver[Machine]:
    """Return the cohort of whoever says to have signed a message; its machine checks kind and signature."""
    signer = IdentityKey(decode(Envelope, received).signer)
    return await request.app[COORDINATOR].cohort(round_id(request), client_id(signer))


def masked(machine: Machine) -> Aggregator:
    """Return the machine of a masked round; raises ProtocolError (stage-mismatch) in a trusted one."""
    if not isinstance(machine, Aggregator):
        raise ProtocolError(ProblemType.STAGE_MISMATCH, "this round is trusted: nothing in it is masked")
    return machine


def sealed(machine: Machine) -> Collector:
    """Return the machine of a trusted round; raises ProtocolError (stage-mismatch) in a masked one."""
    if not isinstance(machine, Collector):
        raise ProtocolError(ProblemType.STAGE_MISMATCH, "this round is masked: nothing in it is sealed to the server")
    return machine


async def _let_in(request: web.Request, kind: Kind) -> tuple[bytes, bytes, Driver[Machine]]:
    """Return a message with which a device enters a round, its valid certificate, and its cohort."""
    turnstile, clock = request.app[TURNSTILE], request.app[DOORKEEPER].clock
    turnstile.pass_address(request.remote or "", clock())
    received = await read_body(request, _MOST_JOIN_BYTES)
    live = await request.app[COORDINATOR].live(round_id(request))
    turnstile.pass_device(joiner(received, kind, live.opening.offer), clock())
    certificate = await request.app[DOORKEEPER].certificate(received, kind)
    return received, certificate, await cohort_of(request, received)


async def join(request: web.Request) -> web.Response:
    """POST join: keys of a device whose certificate the authority has signed."""
    received, certificate, cohort = await _let_in(request, Kind.JOIN)
    proven = await request.app[LOG_BOOK].proven(certificate, cohort.machine.offer.log_head)
    await cohort.handle(lambda machine, now: masked(machine).on_join(received, proven, now))
    return done()


async def accept(request: web.Request) -> web.Response:
    """POST accept: a certified device takes part in a trusted round, and knows that it is one."""
    received, _, cohort = await _let_in(request, Kind.ACCEPT)
    await cohort.handle(lambda machine, now: sealed(machine).on_accept(received, now))
    return done()


async def abort(request: web.Request) -> web.Response:
    """POST abort: a device gives up, whatever the round's mode."""
    received = await read_body(request, _MOST_ABORT_BYTES)
    cohort = await cohort_of(request, received)
    await cohort.handle(lambda machine, now: machine.on_abort(received, now))
    return done()


def taking(most: int, take: Take) -> Handler:
    """Return the handler of a masked round's signed message; the machine checks what it is and who signed it."""

    async def handler(request: web.Request) -> web.Response:
        received = await read_body(request, most)
        cohort = await cohort_of(request, received)
        await cohort.handle(lambda machine, now: take(masked(machine), received, now))
        return done()

    return handler


def giving(document: Document) -> Handler:
    """Return the handler of a signed document, which waits until it exists."""

    async def handler(request: web.Request) -> web.Response:
        reader = await caller(request)
        index = sum_index(request) if "sum_index" in request.match_info else 1
        coordinator = request.app[COORDINATOR]
        found = await coordinator.document(
            round_id(request), client_id(reader), lambda machine: document(machine, reader, index)
        )
        return cbor(found)

    return handler


async def result(request: web.Request) -> web.Response:
    """GET result: how the round ended, however long ago."""
    await caller(request)
    return cbor(await request.app[COORDINATOR].result(round_id(request)))


ROUTES: Final = (
    web.post(f"{_ROUND}/join", join),
    web.post(f"{_ROUND}/accept", accept),
    web.post(f"{_ROUND}/shares", taking(_MOST_SHARES_BYTES, Aggregator.on_shares)),
    web.post(f"{_ROUND}/ack", taking(_MOST_ACK_BYTES, Aggregator.on_ack)),
    web.post(f"{_ROUND}/confirm/{{sum_index}}", taking(_MOST_CONFIRM_BYTES, Aggregator.on_confirm)),
    web.post(f"{_ROUND}/unmask/{{sum_index}}", taking(_MOST_UNMASK_BYTES, Aggregator.on_unmask)),
    web.post(f"{_ROUND}/abort", abort),
    web.get(f"{_ROUND}/roster", giving(lambda machine, reader, _: masked(machine).roster(reader))),
    web.get(f"{_ROUND}/inbox", giving(lambda machine, reader, _: masked(machine).inbox(reader))),
    web.get(f"{_ROUND}/sharers", giving(lambda machine, reader, _: masked(machine).sharers(reader))),
    web.get(f"{_ROUND}/receipt/{{sum_index}}", giving(lambda machine, reader, j: machine.receipt(reader, j))),
    web.get(
        f"{_ROUND}/survivors/{{sum_index}}", giving(lambda machine, reader, j: masked(machine).survivors(reader, j))
    ),
    web.get(
        f"{_ROUND}/confirmations/{{sum_index}}",
        giving(lambda machine, reader, j: masked(machine).confirmations(reader, j)),
    ),
    web.get(f"{_ROUND}/second-input", giving(lambda machine, reader, _: masked(machine).second_input(reader))),
    web.get(f"{_ROUND}/result", result),
)
