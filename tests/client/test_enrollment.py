"""From an invite link to a certificate: the pin first, the code only then, and only sealed."""

from pathlib import Path

import pytest

from fedit_client.membership.enrollment import EnrollPatience, enroll
from fedit_client.membership.trust import PinnedBy, ServerAddress, recognise
from fedit_client.network.problems import WAITS_FOR_OPERATOR, NotReadyError
from fedit_client.network.transport import HttpTransport
from fedit_protocol.enrollment import approval_code
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError, TransportError
from fedit_protocol.signing import SigningKey

from .conftest import CODE, HttpsFederation

KEY = SigningKey(b"\x07" * 32)
NOW = 1_800_000_000


async def test_an_invite_is_recognised_and_redeemed(https: HttpsFederation) -> None:
    address = ServerAddress.parse(https.invite)
    federation = await recognise(address)
    assert federation.pinned_by is PinnedBy.INVITE
    async with HttpTransport(address.host, address.port, federation.tls(), None) as transport:
        credential = await enroll(transport, federation.descriptor, KEY, CODE, "a laptop", lambda: NOW)
    assert credential.certificate
    assert all(CODE.encode() not in body for body in https.bodies)


async def test_row_32_with_a_wrong_pin_nothing_but_the_descriptor_is_asked_for(https: HttpsFederation) -> None:
    wrong = https.invite[:-4] + ("0000" if not https.invite.endswith("0000") else "1111")
    with pytest.raises(SecurityError) as alarm:
        await recognise(ServerAddress.parse(wrong))
    assert alarm.value.code == "T001"
    assert "nothing was sent" in str(alarm.value)
    assert https.asked == ["GET /v1/federation", "GET /v1/federation/successions"]
    assert https.bodies == []


async def test_a_private_authority_without_a_pin_is_refused_with_its_fingerprint(https: HttpsFederation) -> None:
    with pytest.raises(SecurityError) as alarm:
        await recognise(ServerAddress.parse(f"https://127.0.0.1:{https.port}"))
    assert alarm.value.code == "T003"
    assert https.invite.partition("#")[2] in (alarm.value.where or "")
    assert "--pin" in (alarm.value.fix or "")


async def test_a_pin_beside_an_https_address_is_enough(https: HttpsFederation) -> None:
    pin = ServerAddress.parse(https.invite).pin
    federation = await recognise(ServerAddress.parse(f"https://127.0.0.1:{https.port}/j/{CODE}", pin))
    assert federation.pinned_by is PinnedBy.OPTION


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (ProblemType.INVITE_EXPIRED, "T004"),
        (ProblemType.INVITE_USED, "T005"),
        (ProblemType.INVITE_REFUSED, "T006"),
        (ProblemType.CLOCK_SKEW, "T007"),
    ],
)
async def test_a_refused_invite_says_why_and_what_to_do(
    https: HttpsFederation, problem: ProblemType, code: str
) -> None:
    https.refuse["/v1/enroll"] = SecurityError(problem, "no")
    federation = await recognise(ServerAddress.parse(https.invite))
    async with HttpTransport("127.0.0.1", https.port, federation.tls(), None) as transport:
        with pytest.raises(SecurityError) as told:
            await enroll(transport, federation.descriptor, KEY, CODE, "", lambda: NOW)
    assert told.value.code == code
    assert told.value.exit_code == 6
    assert told.value.fix
    if code in {"T004", "T005", "T006"}:  # one command is the organiser's
        assert "join --server 'NEW-LINK', once the organiser has made a new invite (with " in told.value.fix


async def test_somebody_elses_certificate_is_an_alarm(https: HttpsFederation) -> None:
    class Other:
        async def post(self, _path: str, _body: bytes) -> bytes:
            return https._enroll(await sealed_for(SigningKey(b"\x09" * 32)))

    async def sealed_for(key: SigningKey) -> bytes:
        from fedit_protocol.enrollment import EnrollRequest, seal_enrollment

        return seal_enrollment(EnrollRequest(code=CODE, label="", sent_at=NOW), key, https.federation.descriptor)

    with pytest.raises(SecurityError, match="another device"):
        await enroll(Other(), https.federation.descriptor, KEY, CODE, "", lambda: NOW)  # type: ignore[arg-type] # posts only


class AwayAuthority:
    """Posts to a federation whose authority comes back after so many questions, and counts the bytes that came."""

    def __init__(self, https: HttpsFederation, away: int) -> None:
        self.https, self.away = https, away
        self.bodies: list[bytes] = []

    async def post(self, _path: str, body: bytes) -> bytes:
        self.bodies.append(body)
        if len(self.bodies) <= self.away:
            raise NotReadyError("not yet", 0.0)
        return self.https._enroll(body)


async def test_an_authority_that_is_away_is_waited_for_with_the_same_bytes_and_one_word(
    https: HttpsFederation,
) -> None:
    away, said = AwayAuthority(https, 3), []  # type: AwayAuthority, list[str]
    patience = EnrollPatience(600.0, said.append)
    credential = await enroll(away, https.federation.descriptor, KEY, CODE, "", lambda: NOW, patience)  # type: ignore[arg-type] # posts only
    assert credential.certificate
    assert (len(away.bodies), len(set(away.bodies))) == (4, 1)
    assert [text.startswith("the enrolment authority lives apart") for text in said] == [True]


async def test_the_answer_is_judged_by_the_time_at_which_it_comes(https: HttpsFederation) -> None:
    """A machine may sleep while it waits; here it sleeps until the certificate has ended."""
    times = iter([NOW, 4_200_000_000])
    with pytest.raises(SecurityError):
        await enroll(
            AwayAuthority(https, 1),  # type: ignore[arg-type] # posts only
            https.federation.descriptor,
            KEY,
            CODE,
            "",
            lambda: next(times),
        )


async def test_the_wait_for_an_authority_ends_with_what_to_do(https: HttpsFederation) -> None:
    away = AwayAuthority(https, 99)
    with pytest.raises(TransportError) as ended:
        await enroll(away, https.federation.descriptor, KEY, CODE, "", lambda: NOW, EnrollPatience(0.0))  # type: ignore[arg-type] # posts only
    assert (ended.value.code, ended.value.exit_code) == ("N012", 75)
    assert "same invite" in str(ended.value)


LINKS = {
    "nothing": "",
    "a word": "clinic",
    "a short code": "fedit://host/j/ABC#sha256:" + "0" * 64,
    "no pin": "fedit://host/j/K7QF-2M9D-XT4B-W8HC",
    "a port beyond": "fedit://host:99999/j/K7QF-2M9D-XT4B-W8HC#sha256:" + "0" * 64,
    "plain http": "http://host",
    "an https path": "https://host/other/path",
    "an https code that is too short": "https://host/j/ABC",
}


@pytest.mark.parametrize("text", LINKS.values(), ids=LINKS)
def test_what_is_no_address_is_refused_before_anything_happens(text: str) -> None:
    with pytest.raises(ConfigError) as told:
        ServerAddress.parse(text)
    assert told.value.code in {"U003", "U004"}


def test_the_code_is_never_shown() -> None:
    address = ServerAddress.parse(f"fedit://host/j/{CODE}#sha256:" + "0" * 64)
    assert CODE not in repr(address)
    assert address.port == 443


def test_a_pin_that_contradicts_the_link_is_refused() -> None:
    with pytest.raises(ConfigError, match="differs"):
        ServerAddress.parse(f"fedit://host/j/{CODE}#sha256:" + "0" * 64, "sha256:" + "1" * 64)


def test_paths_of_a_home_stay_inside_it(tmp_path: Path) -> None:
    from fedit_client.home.paths import Paths

    assert all(place.is_relative_to(tmp_path) for place in Paths.under(tmp_path).labelled().values())


async def test_a_device_that_waits_for_the_operator_shows_its_code_and_asks_anew(https: HttpsFederation) -> None:
    answers: list[bytes] = []
    said: list[str] = []

    class Waits:
        async def post(self, _path: str, body: bytes) -> bytes:
            answers.append(body)
            if len(answers) < 3:
                raise NotReadyError("wait", 0.0, code=WAITS_FOR_OPERATOR)
            return https._enroll(body)

    clock = iter(range(NOW, NOW + 100))
    patience = EnrollPatience(60.0, said.append)
    credential = await enroll(Waits(), https.federation.descriptor, KEY, CODE, "", lambda: next(clock), patience)  # type: ignore[arg-type] # posts only
    assert credential.certificate
    assert len(set(answers)) == 3, "an old letter would be refused after some minutes"
    (line,) = said
    assert f"Read out this code to them: {approval_code(KEY.public)}" in line


async def test_an_operator_who_stays_away_costs_nothing(https: HttpsFederation) -> None:
    class Waits:
        async def post(self, _path: str, _body: bytes) -> bytes:
            raise NotReadyError("wait", 0.0, code=WAITS_FOR_OPERATOR)

    with pytest.raises(TransportError, match="has not let this device in") as late:
        await enroll(Waits(), https.federation.descriptor, KEY, CODE, "", lambda: NOW, EnrollPatience(0.0))  # type: ignore[arg-type] # posts only
    assert (late.value.code, late.value.exit_code) == ("N012", 75)
