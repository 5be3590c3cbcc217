"""Who asks, behind proxies that are trusted and those that are not."""

from pathlib import Path

import pytest

from fedit_protocol.testing import ManualClock
from fedit_server.access.proxies import networks, real_address
from fedit_server.access.rate import ADDRESS_PER_MINUTE

from .bases import small_task
from .conftest import start

pytestmark = pytest.mark.sqlite

TRUSTED = networks(["10.0.0.0/8", "2001:db8::/32"])
CASES = {
    "no proxy": ("192.0.2.7", [], "192.0.2.7"),
    "an untrusted peer claims another address": ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
    "a trusted proxy names the caller": ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
    "what the caller wrote itself is passed over": ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
    "two proxies in a row": ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
    "two lines of the header": ("10.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
    "only proxies": ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    "a hop that is no address": ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
    "with a port": ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
    "IPv6 in brackets": ("2001:db8::1", ["[2001:db9::5]:443"], "2001:db9::5"),
    "IPv4 inside IPv6": ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
    "a Unix socket": ("", ["198.51.100.1"], "198.51.100.1"),
    "a Unix socket without the header": ("", [], ""),
}


@pytest.mark.parametrize(("peer", "forwarded", "found"), CASES.values(), ids=CASES)
def test_the_real_address(peer: str, forwarded: list[str], found: str) -> None:
    assert real_address(peer, forwarded, TRUSTED) == found


@pytest.mark.parametrize(("trusted", "refused"), [(["127.0.0.0/8"], [False, True]), ([], [True, True])])
async def test_rate_limits_count_the_real_address(
    trusted: list[str], refused: list[bool], tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """Other addresses behind one trusted proxy are other callers; the same header from elsewhere changes nothing."""
    async with start(tmp_path, clock, small_task(base), trusted_proxies=networks(trusted)) as running:
        for _ in range(ADDRESS_PER_MINUTE):
            who = "127.0.0.1" if not trusted else "198.51.100.1"
            running.parts.turnstile.pass_address(who, clock())
        answers = []
        for who in ("198.51.100.2", "198.51.100.1"):
            async with running.http.post("/v1/checkin", data=b"", headers={"X-Forwarded-For": who}) as reply:
                answers.append(reply.status == 429)
        assert answers == refused


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_request_id_is_taken_from_trusted_proxies_only(
    trusted: bool, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    proxies = networks(["127.0.0.1"] if trusted else [])
    async with start(tmp_path, clock, small_task(base), trusted_proxies=proxies) as running:
        async with running.http.get("/livez", headers={"X-Request-Id": "from-the-proxy"}) as reply:
            assert (reply.headers["X-Request-Id"] == "from-the-proxy") is trusted
        async with running.http.get("/livez", headers={"X-Request-Id": "spaces and {braces}"}) as reply:
            assert len(reply.headers["X-Request-Id"]) == 16
