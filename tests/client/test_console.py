"""Questions on a terminal: one signal ends them, inside an event loop too."""

import os
import pty
import signal
import subprocess
import sys

import pytest

ASKS = """
import sys
from fedit_client.console import Console
from fedit_client.conversations.foreground import run_async

async def asks() -> None:
    Console().confirm("Go on?", flag="--yes")

try:
    run_async(asks())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_ends_a_question(number: signal.Signals) -> None:
    """The loop's own handler would note it, and go on waiting for an answer that nobody wants to give.

    It comes as soon as the question is seen, which may be just before the answer is waited for.
    """
    person, terminal = pty.openpty()
    try:
        with subprocess.Popen([sys.executable, "-c", ASKS], stdin=terminal, stdout=terminal) as asked:
            said = b""
            while b"Go on? [y/N]" not in said:
                said += os.read(person, 1024)
            asked.send_signal(number)
            try:
                assert asked.wait(timeout=20) == 130
            finally:
                asked.kill()
    finally:
        os.close(person)
        os.close(terminal)
