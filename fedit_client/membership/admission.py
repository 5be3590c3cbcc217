"""How `join` comes to a certificate: the one that is here and still counts, or a new one for an invite."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fedit_client.config import ClientConfig
from fedit_client.membership.enrollment import Credential, EnrollPatience, enroll, is_enrolled, is_valid
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.joined import Membership
from fedit_client.membership.trust import Federation, ServerAddress
from fedit_protocol.errors import ConfigError, MembershipError
from fedit_protocol.signing import SigningKey


@dataclass(frozen=True)
class Admission:
    """One attempt to belong to a federation; `before` is what this device had joined already, if anything."""

    config: ClientConfig
    address: ServerAddress
    federation: Federation
    before: Membership | None

    async def credential(self, label: str, say: Callable[[str], None]) -> Credential:
        """Return the certificate that is here already and still counts, or redeem the invite.

        Raises MembershipError J002 for another federation than before, ConfigError U005 without an invite code, and
        what enrolling raises.
        """
        self.check()
        address, before = self.address, self.before
        if before is not None and (address.code is None or await self._counts(before)):
            return Credential(before.certificate, before.log_head)
        if address.code is None:
            raise RuntimeError("a device that has not joined needs an invite code")
        async with address.transport(self.federation.tls()) as transport:
            patience = EnrollPatience(self.config.network.enroll_wait_s, say)
            descriptor = self.federation.descriptor
            # Probed before anything is sent: a key that cannot be kept is not enrolled.
            key = load_or_create_identity(self.config.paths.identity_file, self.config.identity.store, say)
            return await enroll(transport, descriptor, key, address.code, label, _now_s, patience)

    def check(self) -> None:
        """Raise MembershipError J002, ConfigError U005: what `credential` needs and this device can see by itself."""
        address, before = self.address, self.before
        known = before is not None and _same(before.federation, self.federation)
        if before is not None and not known:
            raise MembershipError(
                f"this device already belongs to the federation {before.federation.descriptor.name}",
                code="J002",
                where=str(self.config.paths.membership_file),
                fix="fedit-client leave",
                again="--home ANOTHER-FOLDER",
            )
        if before is None and address.code is None:
            raise ConfigError(
                "this address carries no invite code",
                code="U005",
                fix="fedit-client join --server 'LINK', with an invite (the organiser makes it: fedit-server invite)",
            )

    async def _counts(self, before: Membership) -> bool:
        """Say whether an earlier enrolment still stands: an invite is redeemed only if it does not."""
        key, descriptor = self._key(), self.federation.descriptor
        if not is_valid(before.certificate, descriptor, key, _now_s()):
            return False
        signer = (key, descriptor.federation_id)
        async with self.address.transport(self.federation.tls(), signer) as transport:
            return await is_enrolled(transport, before.task_document.task.id)

    def _key(self) -> SigningKey:
        return load_or_create_identity(self.config.paths.identity_file)


def _same(one: Federation, other: Federation) -> bool:
    """The server's key may be another one, also after it was lost; nothing else may, the authority least of all."""
    return one.descriptor.model_copy(update={"server_key": other.descriptor.server_key}) == other.descriptor


def _now_s() -> int:
    return int(time.time())
