"""The recorded rounds, played again by each half alone: the other half's lines are read from the file."""

import json

import numpy as np
import pytest

from .make_vectors import FOLDER
from .recorded import Line
from .replays import DeviceReplay, ServerReplay
from .vector_transcripts import TRANSCRIPTS

NAMES = sorted(TRANSCRIPTS)


def load(name: str) -> Line:
    said: Line = json.loads((FOLDER / "transcripts" / f"{name}.json").read_text("utf-8"))
    return said


def test_the_transcripts_sum_is_that_of_its_updates() -> None:
    """Coordinates on the grid are exact; the others are off by less than one level per unit of weight."""
    said = load("three_devices")
    updates = [np.frombuffer(bytes.fromhex(update), "<f4") for update in said["updates"]]
    exact = sum(update * weight for update, weight in zip(updates, said["weights"], strict=True))
    ring_sum = said["outcome"]["sum"]["ring_sum"]
    assert np.abs(np.array(ring_sum) / 127 - exact).max() < sum(said["weights"]) / 127
    assert (ring_sum[:3], ring_sum[7]) == ([127, 254, 15 * 127], -18 * 127)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_hears_these_devices_says_and_ends_the_same(name: str) -> None:
    said = load(name)
    replay = ServerReplay(said)
    assert replay.play() == [line["bytes"] for line in said["lines"] if line["from"] == "server"]
    assert json.loads(json.dumps(replay.outcome())) == said["outcome"]


@pytest.mark.parametrize("name", NAMES)
def test_every_honest_device_that_hears_this_server_says_the_same(name: str) -> None:
    said = load(name)
    for number in range(len(said["devices"])):
        recorded = [line for line in said["lines"] if line["from"] == number]
        if number == said["liar"]:
            continue
        device = DeviceReplay(said, number)
        device.play()
        spoken = [(str(send.kind), send.envelope.hex()) for send in device.spoken]
        assert spoken == [(line["kind"], line["bytes"]) for line in recorded]
        payloads = [bytes(send.payload).hex() for send in device.spoken if send.payload]
        assert payloads == [line["payload"] for line in recorded if "payload" in line]
