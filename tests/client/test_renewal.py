"""A device renews its certificate by itself, in time, and takes nothing that is not its own."""

import pytest

from fedit_client.membership.renewal import RENEW_BEFORE_S, HeldCertificate
from fedit_client.network.problems import NotReadyError
from fedit_protocol.encoding import encode
from fedit_protocol.enrollment import EnrollReply
from fedit_protocol.errors import SecurityError
from fedit_protocol.testing import MemoryFederation

ENDS = 4_102_444_800


class Authority:
    """Answers with the certificate of one device of the federation."""

    def __init__(self, federation: MemoryFederation, device: int) -> None:
        self.federation, self.key = federation, federation.devices[device].public
        self.asked = 0

    async def post(self, path: str, _body: bytes) -> bytes:
        assert path == "/v1/renew"
        self.asked += 1
        proof = self.federation.path(self.key)
        certificate = self.federation.certificate(self.key)
        return encode(EnrollReply(certificate=certificate, log_head=self.federation.log_head(), path=proof))


def held(federation: MemoryFederation, saved: list[bytes]) -> HeldCertificate:
    key = federation.devices[0]
    return HeldCertificate(key, federation.descriptor, federation.certificate(key.public), saved.append)


@pytest.mark.parametrize(("now_s", "asked"), [(ENDS - RENEW_BEFORE_S - 1, 0), (ENDS - RENEW_BEFORE_S, 1)])
async def test_it_asks_sixty_days_before_the_end_and_keeps_the_answer(now_s: int, asked: int) -> None:
    federation, saved = MemoryFederation(2), []  # type: MemoryFederation, list[bytes]
    authority = Authority(federation, 0)
    assert await held(federation, saved).keep_valid(authority, now_s) is bool(asked)  # type: ignore[arg-type]  # posts only
    assert (authority.asked, len(saved)) == (asked, asked)


async def test_another_devices_certificate_is_refused_and_not_kept() -> None:
    federation, saved = MemoryFederation(2), []  # type: MemoryFederation, list[bytes]
    with pytest.raises(SecurityError, match="another device"):
        await held(federation, saved).keep_valid(Authority(federation, 1), ENDS - 1)  # type: ignore[arg-type]  # posts only
    assert saved == []


class Away:
    """An authority that lives apart and is away."""

    def __init__(self) -> None:
        self.asked = 0

    async def post(self, _path: str, _body: bytes) -> bytes:
        self.asked += 1
        raise NotReadyError("it has not answered yet", 5.0)


async def test_an_authority_that_is_away_is_asked_again_hours_later_and_nobody_waits_for_it() -> None:
    federation, saved = MemoryFederation(2), []  # type: MemoryFederation, list[bytes]
    holding, away, begin = held(federation, saved), Away(), ENDS - RENEW_BEFORE_S
    for later_s in (0, 60, 6 * 3600 - 1, 6 * 3600):
        assert not await holding.keep_valid(away, begin + later_s)  # type: ignore[arg-type]  # posts only
    assert (away.asked, saved) == (2, [])
