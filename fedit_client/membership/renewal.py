"""A certificate ends after a year; a device that is still there asks for the next one by itself, and in time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedit_client.network.problems import NotReadyError
from fedit_client.network.transport import Transport
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import (
    Certificate,
    EnrollReply,
    FederationDescriptor,
    Renew,
    check_reply,
    federation_context,
)
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal

RENEW_BEFORE_S: Final = 60 * 86400
"""A device that runs once in two months still renews; the authority may be away for weeks."""

_ASK_AGAIN_S: Final = 6 * 3600


@dataclass
class HeldCertificate:
    """This device's certificate while a session runs; `save` keeps a new one for the next start."""

    key: SigningKey
    descriptor: FederationDescriptor
    certificate: bytes
    save: Callable[[bytes], None]
    _not_before_s: int = 0

    @property
    def not_after(self) -> int:
        """When it ends, in seconds since 1970, UTC."""
        return self._read().not_after

    async def keep_valid(self, transport: Transport, now_s: int) -> bool:
        """Renew it if it ends soon; return whether that happened. Raises SecurityError T008 if it was revoked."""
        if self.not_after - now_s > RENEW_BEFORE_S or now_s < self._not_before_s:
            return False
        context = federation_context(self.descriptor.federation_id)
        request = seal(self.key, Kind.RENEW, context, Renew(serial=self._read().serial, sent_at=now_s))
        try:
            reply = decode(EnrollReply, await transport.post("/v1/renew", request))
        except NotReadyError:  # an authority that lives apart is away; the certificate is good for weeks
            self._not_before_s = now_s + _ASK_AGAIN_S
            return False
        check_reply(reply, self.descriptor, self.key.public, now_s)
        self.certificate = reply.certificate
        self.save(reply.certificate)
        return True

    def _read(self) -> Certificate:
        return decode(Certificate, read_envelope(self.certificate, Kind.CERTIFICATE).body)
