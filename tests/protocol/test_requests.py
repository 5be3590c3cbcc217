"""Signed requests without a body: bound to key, method, path and minute."""

from collections.abc import Callable

import pytest

from fedit_protocol.encoding import to_base64url
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import FederationId
from fedit_protocol.requests import MAX_CLOCK_SKEW_S, authorization, check_authorization, check_clock
from fedit_protocol.signing import SigningKey
from fedit_protocol.testing import seeded_random

from .rounds import refused

KEY, OTHER = (SigningKey(seeded_random(name)(32)) for name in ("requests", "other"))
HERE, ELSEWHERE = FederationId("0" * 32), FederationId("1" * 32)
NOW = 1_800_000_000
PATH = "/v1/rounds/00/inbox"


def header(now: int = NOW) -> str:
    return authorization(KEY, HERE, "GET", PATH, now)


def test_a_header_names_its_key() -> None:
    assert check_authorization(header(), HERE, "GET", PATH, NOW) == KEY.public


CHANGES: dict[str, tuple[FederationId, str, str]] = {
    "another method": (HERE, "POST", PATH),
    "another path": (HERE, "GET", PATH + "/1"),
    "another case of the path": (HERE, "GET", PATH.upper()),
    "a query": (HERE, "GET", PATH + "?x=1"),
    "another federation": (ELSEWHERE, "GET", PATH),
}


@pytest.mark.parametrize(("federation", "method", "path"), CHANGES.values(), ids=CHANGES)
def test_a_header_is_good_for_one_request(federation: FederationId, method: str, path: str) -> None:
    with refused(ProblemType.BAD_SIGNATURE):
        check_authorization(header(), federation, method, path, NOW)


@pytest.mark.parametrize("skew", [0, 1, -1, MAX_CLOCK_SKEW_S, -MAX_CLOCK_SKEW_S])
def test_clocks_may_differ_a_little(skew: int) -> None:
    check_authorization(header(NOW + skew), HERE, "GET", PATH, NOW)


@pytest.mark.parametrize(
    ("skew", "words"), [(MAX_CLOCK_SKEW_S + 1, "ahead of"), (-MAX_CLOCK_SKEW_S - 1, "behind"), (10**9, "ahead of")]
)
def test_a_replayed_or_misdated_header_is_refused_and_says_which_clock(skew: int, words: str) -> None:
    with refused(ProblemType.CLOCK_SKEW) as error:
        check_authorization(header(NOW + skew), HERE, "GET", PATH, NOW)
    assert f"{abs(skew)} s {words}" in str(error.value)
    assert error.value.code == "T007"
    assert error.value.fix


def test_a_signed_time_in_a_body_is_held_to_the_same_rule() -> None:
    check_clock(NOW, NOW + MAX_CLOCK_SKEW_S)
    with refused(ProblemType.CLOCK_SKEW):
        check_clock(NOW, NOW + MAX_CLOCK_SKEW_S + 1)


def parts() -> list[str]:
    return header().removeprefix("FedIT ").split(".")


def dated(time: str) -> str:
    key, _, signature = parts()
    return f"FedIT {key}.{time}.{signature}"


MALFORMED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "another scheme": lambda: header().replace("FedIT", "Bearer"),
    "no scheme": lambda: ".".join(parts()),
    "a part too few": lambda: "FedIT " + ".".join(parts()[:2]),
    "a part too many": lambda: header() + ".x",
    "a time that is no number": lambda: dated("now"),
    "a negative time": lambda: dated("-1"),
    "a time in other digits": lambda: dated("١٢٣"),
    "a superscript time": lambda: dated("²"),
    "a time without end": lambda: dated("1" * 13),
    "no time": lambda: dated(""),
    "a key with padding": lambda: header().replace(parts()[0], parts()[0] + "="),
    "a key in the other alphabet": lambda: "FedIT " + ".".join(["+/" + parts()[0][2:], *parts()[1:]]),
    "a short key": lambda: "FedIT " + ".".join([to_base64url(KEY.public[:31]), *parts()[1:]]),
    "a short signature": lambda: "FedIT " + ".".join([*parts()[:2], parts()[2][:20]]),
    "no signature": lambda: "FedIT " + ".".join([*parts()[:2], ""]),
    "somebody else's key": lambda: "FedIT " + ".".join([to_base64url(OTHER.public), *parts()[1:]]),
    "a small-order key": lambda: "FedIT " + ".".join([to_base64url(b"\x01" + bytes(31)), *parts()[1:]]),
    "another time than was signed": lambda: dated(str(NOW + 1)),
    "a line break": lambda: header() + "\n",
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_header_is_refused(make: Callable[[], str]) -> None:
    with pytest.raises(ProtocolError) as error:
        check_authorization(make(), HERE, "GET", PATH, NOW)
    assert error.value.problem in (ProblemType.BAD_SIGNATURE, ProblemType.MALFORMED, ProblemType.KEY_REFUSED)
