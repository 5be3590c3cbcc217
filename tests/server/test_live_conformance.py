"""The conformance runner against our own server, over real HTTPS."""

import asyncio
from pathlib import Path

from fedit_server.running.serving import serving

from ..conformance.__main__ import check_live
from .bases import small_task
from .test_serving import plan


async def test_our_server_keeps_every_rule_that_a_stranger_can_see(tmp_path: Path, base: Path) -> None:
    async with serving(plan(tmp_path / "home", small_task(base))) as server:
        assert await asyncio.to_thread(check_live, server.url) == []
