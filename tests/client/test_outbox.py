"""The outbox: the very integers that were masked, the digest of what left, private, small enough, never in the way."""

import asyncio
import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedit_client.cli import invoke
from fedit_client.records.outbox import Occasion, Outbox
from fedit_client.records.payloads import decode_sealed, decode_words, example_payload, payload_lines
from fedit_client.session import Session
from fedit_protocol.advance import advance
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.methods import RoundStart
from fedit_protocol.metrics import ClientReport
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.quantize import decode_sum, encode_update
from fedit_protocol.secagg.ring import as_words, payload_length, word_type
from fedit_protocol.task import Mode
from fedit_protocol.testing import small_task, two_sum_task

from .test_session import Device, World

ABOUT = Occasion("a try", "test-task@1", "sha256:" + "0" * 64, 3, "sha256:" + "1" * 64, 7)


def with_outbox(world: World, folder: Path) -> list[Outbox]:
    """Give every device an outbox of its own."""
    outboxes = []
    for number, device in enumerate(world.devices):
        outbox = Outbox(folder / f"outbox-{number}", 10**9, "server:8443", "memory")
        world.devices[number] = renewed(device, outbox)
        outboxes.append(outbox)
    return outboxes


def renewed(device: Device, outbox: Outbox) -> Device:
    before = device.session
    engagement = replace(device.engagement, outbox=outbox)
    session = Session(engagement, before._held, before._pinned, "cpu", "test")
    return replace(device, session=session, engagement=engagement)


async def test_the_masked_sum_is_the_sum_of_the_outboxes(tmp_path: Path) -> None:
    """What each owner can read is what the server adds up, to the last integer, and never what it receives."""
    world = World(tmp_path, small_task(3, size=500, rounds=1))
    outboxes = with_outbox(world, tmp_path)
    start = world.server.adapter
    assert await world.run() == [1, 1, 1]
    entries = [outbox.entry(1) for outbox in outboxes]
    ring, sent = sum_specs(world.document)[0].ring, dict(world.server.uploads)
    for device, outbox, entry in zip(world.devices, outboxes, entries, strict=True):
        upload = sent[device.engagement.key.public]
        assert (entry.sha256, entry.bytes) == (hashlib.sha256(upload).hexdigest(), len(upload))
        assert (entry.kind, entry.round_no, entry.receiver) == ("upload", 1, "server:8443")
        assert entry.sent_at is not None
        values = outbox.values(1)["lora"]
        assert values.dtype == np.int16
        assert values.tobytes() not in upload
        assert entry.payload["figures"]["examples"] == 120
        assert entry.payload["report"]["train_loss"] == pytest.approx(1.5)
        # 0.01, 0.02 or 0.03 of a range of 1 is 1.27 to 3.81 of 127 levels, times the weight.
        assert values.min() >= entry.payload["weight"]
        assert values.max() <= 4 * entry.payload["weight"]
    total = np.sum([outbox.values(1)["lora"].astype(np.int64) for outbox in outboxes], axis=0)
    weight = sum(entry.payload["weight"] for entry in entries)
    mean = total.astype(np.float64) * entries[0].payload["unit"] / weight
    assert np.array_equal(world.server.adapter, (start.astype(np.float64) + mean).astype(np.float32))
    assert entries[0].payload["unit"] == ring.value_range / 127


async def test_without_an_outbox_a_round_is_as_before(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3, rounds=1))
    assert await world.run() == [1, 1, 1]
    assert list(tmp_path.rglob("*.npz")) == []


async def test_what_cannot_be_written_down_does_not_leave(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3, rounds=1))
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder belongs")
    world.devices[0] = renewed(world.devices[0], Outbox(blocked, 10**9))
    with pytest.raises(StorageError):
        async with asyncio.timeout(20):
            await asyncio.gather(*(device.session.run() for device in world.devices))
    assert world.devices[0].engagement.key.public not in {device for device, _ in world.server.uploads}


async def test_an_outbox_that_is_damaged_after_the_upload_does_not_cost_the_round(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3, rounds=1))
    with_outbox(world, tmp_path)
    device = world.devices[0]

    def damage(path: str) -> None:
        if "/uploads/" in path:
            (tmp_path / "outbox-0" / "000001.json").write_text("{")

    device.transport.before = damage
    assert await world.run() == [1, 1, 1]
    assert [event.text for event in device.events if event.text.startswith("the outbox could not note a receipt")]


async def test_two_sums_are_two_uploads(tmp_path: Path) -> None:
    document = two_sum_task(8)
    ring_1, ring_2 = (spec.ring for spec in sum_specs(document))
    update = np.full(document.layout.size, 0.5, dtype=np.float32)
    report = ClientReport(5, 1.0, None)
    first = np.concatenate([update, np.zeros(ring_1.sketch_size, dtype=np.float32)])
    shown = decode_words(encode_update(first, 2, report, ring_1, bytes(32)), ring_1, document.layout)
    assert set(shown.tensors) == {"layer.lora_A.weight", "layer.lora_B.weight", "sketch"}
    assert shown.report() == {"examples": 5, "train_loss": 1.0, "held_out_loss": None, "clipped_fraction": 0.0}
    second = encode_update(np.zeros(ring_2.size, dtype=np.float32), 2, report, ring_2, bytes(32))
    assert set(decode_words(second, ring_2, document.layout).tensors) == {"correction"}


def test_integers_add_up_in_the_ring_like_the_words_they_come_from() -> None:
    document = small_task(3, size=64)
    ring, report = sum_specs(document)[0].ring, ClientReport(10, 1.0, 2.0)
    updates = [np.linspace(-sign, sign, 64, dtype=np.float32) for sign in (0.9, -0.4, 0.2)]
    words = [encode_update(update, 3, report, ring, bytes([i]) * 32) for i, update in enumerate(updates)]
    payloads = [decode_words(one, ring, document.layout) for one in words]
    aggregate = decode_sum(np.add.reduce(words, dtype=word_type(ring)), 3, ring)
    assert np.array_equal(sum(one.tensors["lora"].astype(np.int64) for one in payloads), aggregate.ring_sum)
    assert sum(one.weight for one in payloads) == aggregate.weight
    assert advance(RoundStart(document, 0, np.zeros(64, np.float32)), aggregate).adapter.shape == (64,)


def entry(outbox: Outbox, size: int, sent: bytes | None = b"masked") -> None:
    outbox.keep(example_payload(small_task(3, size=size)), ABOUT, sent)


def test_the_oldest_uploads_go_when_all_are_too_large(tmp_path: Path) -> None:
    roomy = Outbox(tmp_path, 10**9)
    for _ in range(3):
        entry(roomy, 2000)
    tight = Outbox(tmp_path, roomy.size() - 100)
    entry(tight, 2000)
    assert [one.number for one in tight.entries()] == [3, 4]
    entry(Outbox(tmp_path, 1), 2000)  # the newest stays, however large
    assert [one.number for one in tight.entries()] == [5]
    assert len(list(tmp_path.glob("[0-9]*"))) == 2


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", 10**9)
    entry(outbox, 20)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "outbox").iterdir()}
    assert (modes, stat.S_IMODE((tmp_path / "outbox").stat().st_mode)) == ({0o600}, 0o700)


def test_a_receipt_is_noted_by_the_digest_of_what_was_sent(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 10**9)
    entry(outbox, 20, b"one")
    entry(outbox, 20, b"two")
    outbox.note_receipt(hashlib.sha256(b"one").hexdigest(), at=1)
    outbox.note_receipt(hashlib.sha256(b"pruned").hexdigest())
    assert [one.sent_at for one in outbox.entries()] == [1, None]


def test_a_dry_run_and_an_upload_at_once_are_two_entries(tmp_path: Path) -> None:
    outboxes = [Outbox(tmp_path, 10**9) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda outbox: entry(outbox, 20), outboxes * 4))
    assert [one.number for one in outboxes[0].entries()] == list(range(1, 33))


def test_the_commands_list_show_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ("--home", str(tmp_path))
    assert invoke(["outbox", "list", *home]) == 0
    assert "nothing was uploaded yet" in capsys.readouterr().out
    outbox = Outbox(tmp_path / "outbox", 10**9, "server:8443", "memory")
    entry(outbox, 300)
    assert invoke(["outbox", "list", *home]) == 0
    assert "test-task@1  round 7" in capsys.readouterr().out
    assert invoke(["outbox", "show", "1", *home]) == 0
    shown = capsys.readouterr().out
    assert f"SHA-256 of the bytes that left, under masks: {hashlib.sha256(b'masked').hexdigest()}" in shown
    assert "lora 300: " in shown
    assert "weight 1, 1,000 examples, training loss 1.500" in shown
    for form in ("npz", "safetensors"):
        folder = tmp_path / form
        assert invoke(["outbox", "export", "1", "--to", form, "--out", str(folder), *home]) == 0
        assert json.loads((folder / "upload-1.json").read_text())["sha256"] == outbox.entry(1).sha256
    exported = load_file(tmp_path / "safetensors" / "upload-1.safetensors")["lora"]
    assert np.array_equal(exported, outbox.values(1)["lora"])
    capsys.readouterr()
    assert invoke(["outbox", "export", "1", "--out", str(tmp_path / "npz"), *home]) == 2
    assert "FEDIT-U010" in capsys.readouterr().err
    assert invoke(["outbox", "show", "2", *home]) == 2
    assert "FEDIT-U009" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["start", "empty", "cut", "flipped"])
def test_a_damaged_entry_is_named(tmp_path: Path, damage: str) -> None:
    outbox, path = Outbox(tmp_path, 10**9), tmp_path / "000001.npz"
    entry(outbox, 2000)
    whole = path.read_bytes()
    middle = whole.index(b"lora.npy") + 40
    damaged = {
        "start": b"PK",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:middle] + bytes(40) + whole[middle + 40 :],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(StorageError) as told:
        outbox.values(1)
    assert told.value.code == "S017"
    with pytest.raises(ConfigError):
        outbox.entry(9)


@pytest.mark.parametrize("mode", list(Mode))
def test_an_example_has_the_form_and_the_size_of_a_real_upload(mode: Mode) -> None:
    document = small_task(5, size=90, mode=mode)
    example = example_payload(document)
    assert example.tensors["lora"].shape == (90,)
    assert example.as_data()["tensors"][0]["name"] == "lora"
    assert example.report()["examples"] == 1000
    if mode is Mode.MASKED:
        ring = sum_specs(document)[0].ring
        assert example.size == payload_length(ring)
        assert len(as_words(bytes(example.size), ring)) * ring.word_bits // 8 == example.size
    else:
        real = decode_sealed(np.ones(90, np.float32), 2, ClientReport(3, 1.0, None), document)
        assert (example.size, real.weight) == (real.size, 2)
        assert real.tensors["lora"].dtype == np.dtype(np.float32)
    assert "90 " in payload_lines(example)[0]
