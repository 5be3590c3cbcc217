"""The signal that a pause is made of, and a trainer that keeps to it."""

import asyncio
from pathlib import Path

from fedit_client.rounds.preparation import unplanned
from fedit_client.testing import FakeTrainer
from fedit_client.training import PauseSignal, TrainingRequest
from fedit_protocol.testing import small_task


def request(folder: Path, pause: PauseSignal) -> TrainingRequest:
    document = small_task(3)
    return TrainingRequest(document, folder, folder, (), b"seed", unplanned(document), pause=pause)


async def test_a_signal_tells_its_reason_until_it_is_taken_back() -> None:
    signal = PauseSignal()
    await signal.until_resumed()
    assert signal.reason == ""
    signal.pause("on battery")
    assert await signal.until_paused() == "on battery"
    signal.pause("another program uses the GPU")
    assert signal.reason == "another program uses the GPU"
    signal.resume()
    await signal.until_resumed()
    assert signal.reason == ""


async def test_whoever_waits_for_a_change_wakes_at_it() -> None:
    signal = PauseSignal()
    paused = asyncio.create_task(signal.until_paused())
    await asyncio.sleep(0)
    assert not paused.done()
    signal.pause("on battery")
    assert await paused == "on battery"
    resumed = asyncio.create_task(signal.until_resumed())
    await asyncio.sleep(0)
    assert not resumed.done()
    signal.resume()
    await resumed


async def test_a_trainer_waits_while_there_is_a_pause(tmp_path: Path) -> None:
    signal, trainer = PauseSignal(), FakeTrainer(value=0.5)
    signal.pause("on battery")
    training = asyncio.create_task(trainer.train(request(tmp_path, signal), lambda _: None))
    await asyncio.sleep(0)
    assert (training.done(), len(trainer.requests)) == (False, 1)
    signal.resume()
    assert set((await training).update.tolist()) == {0.5}
