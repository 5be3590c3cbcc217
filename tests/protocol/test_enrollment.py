"""From invite to certificate: one spelling of a link, one reader of a request, one signer of certificates."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import (
    CODE_ALPHABET,
    Certificate,
    EnrollRequest,
    FederationDescriptor,
    InviteLink,
    check_certificate,
    check_log_head,
    federation_context,
    new_code,
    normalise_code,
    open_enrollment,
    seal_enrollment,
)
from fedit_protocol.errors import ConfigError, ProblemType
from fedit_protocol.ids import ClientId, FederationId, client_id, identity_key
from fedit_protocol.keylog import LogHead
from fedit_protocol.signing import Kind, SigningKey, seal, unseal
from fedit_protocol.testing import MemoryFederation, seeded_random

from .rounds import refused

CODE = "K7QF2M9DXT4BW8HC"
PIN = "sha256:" + "9f" * 32
LINK = f"fedit://host.example:8443/j/K7QF-2M9D-XT4B-W8HC#{PIN}"
SECRET = X25519PrivateKey.from_private_bytes(seeded_random("authority seal")(32))
FEDERATION = MemoryFederation(2)
DESCRIPTOR = FEDERATION.descriptor.model_copy(update={"authority_seal_key": SECRET.public_key().public_bytes_raw()})
NOW = 1_800_000_000


# --- links and codes ------------------------------------------------------------------------------


def test_a_link_is_read_and_written_the_same() -> None:
    link = InviteLink.parse(LINK)
    assert (link.host, link.port, link.code, link.pin) == ("host.example", 8443, CODE, PIN)
    assert str(link) == LINK


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "a-b.example.org", "[::1]", "[2001:db8::7]"])
def test_hosts_survive(host: str) -> None:
    link = InviteLink.parse(f"fedit://{host}:1/j/{CODE}#{PIN}")
    assert link.host == host.strip("[]")
    assert InviteLink.parse(str(link)) == link


def test_blanks_around_a_pasted_link_are_no_harm() -> None:
    assert InviteLink.parse(f"  {LINK}\n") == InviteLink.parse(LINK)


def test_without_a_port_the_usual_one_is_meant() -> None:
    assert InviteLink.parse(f"fedit://h/j/{CODE}#{PIN}").port == 443


def test_a_code_may_be_typed_as_people_read_it() -> None:
    typed = InviteLink.parse(f"fedit://h/j/k7qf-2m9d-xt4b-w8hc#{PIN}")
    assert typed.code == CODE
    assert normalise_code("O0I1L-oil-0123456789") == normalise_code("0011101101234567 89".replace(" ", ""))


WRONG_LINKS = {
    "another scheme": LINK.replace("fedit:", "https:"),
    "no pin": LINK.partition("#")[0],
    "a pin too short": LINK[:-1],
    "a pin in capitals": LINK.replace("9f", "9F"),
    "another digest": LINK.replace("sha256", "sha512"),
    "a code too short": LINK.replace("-W8HC", ""),
    "a letter that no code has": LINK.replace("K7QF", "U7QF"),
    "a port of zero": LINK.replace("8443", "0"),
    "a port too high": LINK.replace("8443", "65536"),
    "a user": LINK.replace("host", "me@host"),
    "a path": LINK.replace("/j/", "/x/j/"),
    "something behind it": LINK + "x",
    "a line break inside": LINK.replace("#", "\n#"),
    "nothing": "",
    "a web address": "https://host.example:8443",
}


@pytest.mark.parametrize("link", WRONG_LINKS.values(), ids=WRONG_LINKS)
def test_what_is_no_invite_link_is_refused_with_a_hint(link: str) -> None:
    with pytest.raises(ConfigError) as error:
        InviteLink.parse(link)
    assert error.value.code == "U003"
    assert error.value.exit_code == 2


def test_a_link_hides_its_code_where_it_might_be_logged() -> None:
    assert CODE not in repr(InviteLink.parse(LINK))
    assert "K7QF" not in repr(InviteLink.parse(LINK))


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=16, max_size=16))
def test_a_new_code_is_its_own_normal_form(random: bytes) -> None:
    code = new_code(random)
    assert normalise_code(code) == code
    assert normalise_code(code.lower()) == code


def test_every_symbol_of_a_code_is_equally_likely() -> None:
    assert 256 % len(CODE_ALPHABET) == 0
    assert sorted(new_code(bytes(range(16))) + new_code(bytes(range(16, 32)))) == sorted(CODE_ALPHABET)
    with pytest.raises(ValueError, match="16 random bytes"):
        new_code(bytes(15))


# --- sealed requests ------------------------------------------------------------------------------

DEVICE = FEDERATION.devices[0]
REQUEST = EnrollRequest(code=CODE, label="kitchen table", sent_at=NOW)


def test_a_request_reaches_the_authority_and_proves_possession_of_its_key() -> None:
    signed = open_enrollment(seal_enrollment(REQUEST, DEVICE, DESCRIPTOR), SECRET, DESCRIPTOR.federation_id)
    context = federation_context(DESCRIPTOR.federation_id)
    assert unseal(signed, Kind.ENROLL, context, EnrollRequest, signer=DEVICE.public) == REQUEST


def test_row_32_a_relay_reads_nothing_of_a_request() -> None:
    """Row 32: the server only passes it on; neither code nor label nor key is in what it holds."""
    sealed = seal_enrollment(REQUEST, DEVICE, DESCRIPTOR)
    for secret in (CODE.encode(), b"kitchen table", bytes(DEVICE.public)):
        assert secret not in sealed
    assert seal_enrollment(REQUEST, DEVICE, DESCRIPTOR) != sealed, "sealing is randomised"


def test_a_request_opens_for_its_authority_and_federation_only_and_unaltered_only() -> None:
    sealed = seal_enrollment(REQUEST, DEVICE, DESCRIPTOR)
    other = X25519PrivateKey.from_private_bytes(seeded_random("other")(32))
    attempts: list[tuple[bytes, X25519PrivateKey, FederationId]] = [
        (sealed, other, DESCRIPTOR.federation_id),
        (sealed, SECRET, FederationId("f" * 32)),
        (sealed[:-1], SECRET, DESCRIPTOR.federation_id),
        (sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:], SECRET, DESCRIPTOR.federation_id),
        (b"", SECRET, DESCRIPTOR.federation_id),
        (bytes(100), SECRET, DESCRIPTOR.federation_id),
    ]
    for attempt in attempts:
        with refused(ProblemType.BAD_SIGNATURE):
            open_enrollment(*attempt)


@pytest.mark.parametrize("code", ["", CODE.lower(), CODE[:-1], CODE + "0", "U" * 16])
def test_a_request_carries_a_normal_code(code: str) -> None:
    with pytest.raises(ValueError, match="code"):
        EnrollRequest(code=code, label="", sent_at=0)


# --- certificates, log heads, the descriptor ------------------------------------------------------


def certificate(signer: SigningKey = FEDERATION.authority, **changes: Any) -> bytes:
    honest = Certificate(
        federation_id=DESCRIPTOR.federation_id,
        identity_key=DEVICE.public,
        serial=1,
        not_before=NOW - 10,
        not_after=NOW + 10,
        enrolled_at=NOW - 10,
        log_index=0,
    )
    return seal(signer, Kind.CERTIFICATE, FEDERATION.context, honest.model_copy(update=changes))


@pytest.mark.parametrize("now", [NOW - 10, NOW, NOW + 10])
def test_a_certificate_is_good_from_its_first_to_its_last_second(now: int) -> None:
    assert check_certificate(certificate(), DESCRIPTOR, now).identity_key == DEVICE.public


@pytest.mark.parametrize("now", [NOW - 11, NOW + 11])
def test_a_certificate_is_refused_outside_its_time(now: int) -> None:
    with refused(ProblemType.NOT_ENROLLED):
        check_certificate(certificate(), DESCRIPTOR, now)


def test_a_certificate_of_another_federation_is_refused() -> None:
    with refused(ProblemType.NOT_ENROLLED):
        check_certificate(certificate(federation_id="e" * 32), DESCRIPTOR, NOW)
    other = seal(FEDERATION.authority, Kind.CERTIFICATE, bytes(32), REQUEST)
    with refused(ProblemType.BAD_SIGNATURE):
        check_certificate(other, DESCRIPTOR, NOW)


@pytest.mark.parametrize("signer", [FEDERATION.server, DEVICE], ids=["the server", "the device itself"])
def test_only_the_authority_certifies(signer: SigningKey) -> None:
    with refused(ProblemType.BAD_SIGNATURE):
        check_certificate(certificate(signer), DESCRIPTOR, NOW)


def test_a_log_head_comes_from_the_authority() -> None:
    assert check_log_head(FEDERATION.log_head(), DESCRIPTOR).size == 2
    head = LogHead(federation_id=DESCRIPTOR.federation_id, size=3, root=bytes(32), revoked=bytes(32), time=0)
    with refused(ProblemType.BAD_SIGNATURE):
        check_log_head(seal(FEDERATION.server, Kind.LOG_HEAD, FEDERATION.context, head), DESCRIPTOR)
    with refused(ProblemType.MALFORMED):
        check_log_head(certificate(), DESCRIPTOR)


def test_the_pin_is_the_digest_of_everything_that_is_trusted() -> None:
    pins = {digest_of(encode(DESCRIPTOR))}
    changes: dict[str, Any] = {
        "server_key": DEVICE.public,
        "authority_key": DEVICE.public,
        "authority_seal_key": bytes(32),
        "tls_ca": "another",
        "modes": (),
        "authority_is_server": False,
        "federation_id": "f" * 32,
        "name": "another",
    }
    assert changes.keys() == set(FederationDescriptor.model_fields)
    for field, value in changes.items():
        pins.add(digest_of(encode(DESCRIPTOR.model_copy(update={field: value}))))
    assert len(pins) == 1 + len(changes)
    assert decode(FederationDescriptor, encode(DESCRIPTOR)) == DESCRIPTOR


def test_contexts_of_federations_differ() -> None:
    assert federation_context(FederationId("0" * 32)) != federation_context(FederationId("1" * 32))


def test_a_client_id_is_the_key_in_hex() -> None:
    assert identity_key(client_id(DEVICE.public)) == DEVICE.public
    for text in ("", "00", "zz" * 32, "00" * 33):
        with pytest.raises(ValueError, match="hex"):
            identity_key(ClientId(text))
