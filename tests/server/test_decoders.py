"""What reads the bytes of strangers lets only its own errors out: hypothesis a little, atheris for a minute."""

import os
import resource
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .decoders import DECODERS, Decoder, messages

ROOT = Path(__file__).parents[2]


@st.composite
def spoiled(draw: st.DrawFn, seed: bytes) -> bytes:
    """Bytes like the seed: cut, doubled, with some of them changed; or anything."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    content = bytearray(seed * draw(st.integers(1, 2)))
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))])


def check(decoder: Decoder, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(spoiled(decoder.seed))
    def survives(content: bytes) -> None:
        decoder.survives(content)

    decoder.survives(decoder.seed)
    survives()


@pytest.mark.parametrize("name", DECODERS)
def test_only_its_own_errors_leave_a_decoder(name: str) -> None:
    check(DECODERS[name], 25)


def test_every_message_is_among_them() -> None:
    assert len(messages()) > 30


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python and system")
@pytest.mark.parametrize("name", DECODERS)
def test_a_minute_of_search_finds_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.server.searching", name, "60"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_bad_input_leaves_no_memory_behind() -> None:
    peaks = []
    for _quarter in range(4):
        for decoder in DECODERS.values():
            check(decoder, 300)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[3] <= 1.05 * peaks[1]
