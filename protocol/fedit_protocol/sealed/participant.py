"""The client half of a trusted round, as a machine without I/O.

OFFERED   the offer is verified against signature, protocol and the owner's limits, the mode among them.
JOINED    the server was told that this device takes part; training runs.
FROZEN    the update is sealed, once; only its bytes may ever be sent.
UPLOADED  the server's receipt is held.
WIPED     the round is over for this device.

There are no round secrets to wipe: whoever holds the update can seal it, and only the server's round key opens it.
"""

from datetime import datetime

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import digest_of
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.limits import LastSeen, Limits, open_offer
from fedit_protocol.messages import Accept, Receipt, SealedSpec, UploadHeader
from fedit_protocol.metrics import ClientReport
from fedit_protocol.sealed.updates import seal_update
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Effects, Persist, Record, Send
from fedit_protocol.secagg.keys import check_agreement_key
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal
from fedit_protocol.task import Mode


class SealedParticipant:
    """One device in one trusted round; RuntimeError for a wrong call order, SecurityError for a server's breach."""

    def __init__(
        self,
        offer: bytes,
        descriptor: FederationDescriptor,
        key: SigningKey,
        limits: Limits,
        now: datetime,
        *,
        last: LastSeen | None = None,
    ) -> None:
        """Verify the signed offer (C1 to C3, C6); raises SecurityError or TaskRefusedError."""
        self._descriptor = descriptor
        self._key = key
        self.offer, _ = open_offer(offer, descriptor, limits, last, now, Mode.TRUSTED)
        if self.offer.sealed is None:
            raise SecurityError(ProblemType.POLICY_REFUSED, "the offer names no key to seal to")
        self._spec: SealedSpec = self.offer.sealed
        check_agreement_key(self._spec.key)
        self._ctx0 = offer_context(read_envelope(offer, Kind.OFFER).body)
        self._header = b""
        self.stage = ClientStage.OFFERED

    def accept(self) -> Effects:
        """Say that this device takes part. The round number is persisted first: it is never accepted again."""
        self._expect(ClientStage.OFFERED)
        self.stage = ClientStage.JOINED
        joined = Record(kind="joined", body=self.offer.round_id.encode())
        accept = seal(self._key, Kind.ACCEPT, self._ctx0, Accept(mode=Mode.TRUSTED))
        return (Persist(joined), Send(Kind.ACCEPT, accept))

    def freeze(self, update: Vector, weight: int, report: ClientReport) -> Effects:
        """Seal the update, once, and sign what was sealed (C10, C11). CPU-bound: call it in a thread.

        The payload is persisted with its signed header before the first byte leaves; any resend uses those bytes.
        """
        self._expect(ClientStage.JOINED)
        self.stage = ClientStage.FROZEN
        payload = seal_update(update, weight, report, self._spec, self._ctx0, self._key.public)
        digest = bytes.fromhex(digest_of(payload).removeprefix("sha256:"))
        header = UploadHeader(sum_index=1, length=len(payload), digest=digest)
        self._header = seal(self._key, Kind.SEALED_UPLOAD, self._ctx0, header)
        return (
            Persist(Record(kind="frozen", body=self._header), payload),
            Send(Kind.SEALED_UPLOAD, self._header, payload),
        )

    def on_receipt(self, received: bytes) -> Effects:
        """Keep the server's word that the upload is on its disk (C12)."""
        self._expect(ClientStage.FROZEN)
        receipt = unseal(received, Kind.RECEIPT, self._ctx0, Receipt, signer=self._descriptor.server_key)
        if f"sha256:{receipt.header.hex()}" != digest_of(self._header):
            raise SecurityError(ProblemType.DIGEST_MISMATCH, "the receipt is for another upload")
        self.stage = ClientStage.UPLOADED
        return (Persist(Record(kind="receipt", body=received)),)

    def wipe(self) -> None:
        """Say nothing more in this round."""
        self._header = b""
        self.stage = ClientStage.WIPED

    def _expect(self, stage: ClientStage) -> None:
        if self.stage is not stage:
            raise RuntimeError(f"the participant is {self.stage}, not {stage}")
