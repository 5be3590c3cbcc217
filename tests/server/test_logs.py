"""What a whole federation's logs hold: ids of requests, tasks and rounds, and not one word that is somebody's."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.ids import client_id
from fedit_protocol.testing import ManualClock
from fedit_server.access.proxies import networks
from fedit_server.access.roles import Role
from fedit_server.admin.models.tokens import NewToken
from fedit_server.admin.tokens import create_token
from fedit_server.logs import LineFormatter, about_request, configure_logs, request_id

from .bases import small_task
from .conftest import start
from .devices import one_hot
from .test_serving import SIZE

pytestmark = pytest.mark.sqlite
CANARY_ADDRESS = "198.51.100.77"
CANARY_LABEL = "canary-label"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What `serve` would write to stderr, at its most talkative; logging is put back afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    target = io.StringIO()
    with redirect_stderr(target):
        configure_logs(as_json=True, quiet=False, verbose=True)
    yield target
    root.handlers[:] = before
    root.setLevel(level)
    for name in ("fedit_server", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(logged: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged.getvalue().splitlines()]


async def test_a_federations_logs_hold_no_canary(
    tmp_path: Path, base: Path, clock: ManualClock, logged: io.StringIO
) -> None:
    """A round, a refusal of every common kind, a bug, a token: none of their secrets is in any line."""
    async with start(tmp_path, clock, small_task(base), trusted_proxies=networks(["127.0.0.1"])) as running:
        code = await running.code()
        devices = [running.device() for _ in range(3)]
        for device in devices:
            await device.enroll(code)
        secret = (await create_token(running.parts.admin, NewToken(role=Role.ADMIN, lifetime_s=3600))).secret
        await asyncio.gather(*(device.take_part(one_hot(SIZE, i)) for i, device in enumerate(devices)))
        await devices[0].result()
        proxy = {"X-Forwarded-For": CANARY_ADDRESS, "X-Request-Id": "canary-request"}
        wrong = {"Authorization": "Bearer fedit_canary-of-a-wrong-token", **proxy}
        for method, path, body, headers in (
            ("POST", "/v1/checkin", b"canary-of-a-body", proxy),
            ("POST", "/v1/enroll", b"canary-of-a-body", proxy),
            ("GET", "/metrics", None, wrong),
            ("GET", "/metrics?canary-of-a-query", None, {"Authorization": f"Bearer {secret}", **proxy}),
            ("GET", "/canary-of-a-path", None, proxy),
        ):
            async with running.http.request(method, path, data=body, headers=headers) as reply:
                await reply.read()
        running.parts.metrics.render = broken  # type: ignore[method-assign]  # a bug, as it would be in a new version
        async with running.http.get("/metrics", headers={"Authorization": f"Bearer {secret}", **proxy}) as reply:
            assert reply.status == 500
        identity = running.parts.identity
    text = logged.getvalue()
    told = lines(logged)
    assert {"task", "round", "stage"} <= set().union(*told)
    (bug,) = [line for line in told if line["event"] == "a request failed"]
    assert bug["request_id"] == "canary-request"
    keys = [identity.keys.server.public, *(device.key.public for device in devices)]
    for canary in [
        code, secret, CANARY_ADDRESS, "127.0.0.1", "canary-of-a", str(tmp_path / "keys"),
        *(key.hex() for key in keys), *(client_id(device.key.public) for device in devices),
    ]:  # fmt: skip
        assert canary not in text, canary


def broken() -> bytes:
    raise ZeroDivisionError("division by zero")


def test_a_line_on_a_terminal_has_its_fields_and_the_request() -> None:
    record = logging.LogRecord("fedit_server", logging.INFO, "", 0, "a round is open", (), None)
    record.task, record.loss = "notes", 1.23456
    assert LineFormatter().format(record).endswith("a round is open  task=notes loss=1.235")
    with about_request("abc"):
        assert request_id() == "abc"
    assert request_id() == ""
