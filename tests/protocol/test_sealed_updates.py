"""The seal of one update: what opens, what does not, and what the server refuses once it can see."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.metrics import ClientReport
from fedit_protocol.sealed.opening import OpeningJob
from fedit_protocol.sealed.updates import open_update, seal_update, sealed_length
from fedit_protocol.testing import seeded_random

from .sealing import ROUND_KEY, one_hot, round_spec, seal_repeatably, trusted_task

SPEC = round_spec(trusted_task())
CTX0, OTHER_CTX0 = seeded_random("round")(32), seeded_random("another round")(32)
DEVICE, STRANGER = IdentityKey(seeded_random("device")(32)), IdentityKey(seeded_random("stranger")(32))
REPORT = ClientReport(examples=10, train_loss=1.5, held_out_loss=None)
UPDATE = np.array([1, -2, 0.5, 0, 0, 0, 0.25, 3], dtype=np.float32)


def sealed(update: np.ndarray = UPDATE, weight: int = 2) -> bytes:
    return seal_update(update, weight, REPORT, SPEC, CTX0, DEVICE)


def forged(update: np.ndarray, tail: list[int]) -> bytes:
    """A seal around a plaintext that no honest device makes."""
    plain = update.astype("<f4").tobytes() + np.array(tail, dtype="<u8").tobytes()
    ephemeral = X25519PrivateKey.from_private_bytes(seeded_random("ephemeral")(32))
    return seal_repeatably(plain, SPEC.key, ephemeral, b"FedIT/1|update|" + CTX0 + DEVICE)


TAIL = [2, 10, 3000, 0, 0, 0]


def test_what_was_sealed_opens_and_says_the_same() -> None:
    opened = open_update(sealed(), ROUND_KEY, SPEC, CTX0, DEVICE)
    assert opened.update.tolist() == UPDATE.tolist()
    assert opened.weight == 2
    assert opened.figures == {
        "examples": 10, "train_loss": 3000, "held_out_loss": 0, "held_out_weight": 0, "clipped_fraction": 0,
    }  # fmt: skip


def test_every_update_of_a_task_has_one_length_and_no_two_seals_are_alike() -> None:
    assert len(sealed()) == len(sealed(np.zeros(8, np.float32), 1)) == sealed_length(SPEC) == 8 * 4 + 6 * 8 + 48
    assert sealed() != sealed()


def test_a_long_update_is_clipped_and_says_so() -> None:
    opened = open_update(sealed(one_hot(3, 250.0)), ROUND_KEY, SPEC, CTX0, DEVICE)
    assert opened.update.tolist() == one_hot(3, 100.0).tolist()
    assert opened.figures["clipped_fraction"] == 2 * 10_000


@pytest.mark.parametrize("seed", range(20))
def test_what_a_device_clips_always_passes_the_servers_check(seed: int) -> None:
    update = np.random.default_rng(seed).normal(0, 1e4, 8).astype(np.float32)
    assert open_update(sealed(update), ROUND_KEY, SPEC, CTX0, DEVICE).weight == 2


OTHERS = {
    "another round": lambda box: open_update(box, ROUND_KEY, SPEC, OTHER_CTX0, DEVICE),
    "another device": lambda box: open_update(box, ROUND_KEY, SPEC, CTX0, STRANGER),
    "another key": lambda box: open_update(
        box, X25519PrivateKey.from_private_bytes(seeded_random("other HK")(32)), SPEC, CTX0, DEVICE
    ),
    "a changed byte": lambda box: open_update(box[:-1] + bytes([box[-1] ^ 1]), ROUND_KEY, SPEC, CTX0, DEVICE),
    "a changed encapsulation": lambda box: open_update(bytes([box[0] ^ 1]) + box[1:], ROUND_KEY, SPEC, CTX0, DEVICE),
    "an encapsulation of low order": lambda box: open_update(bytes(32) + box[32:], ROUND_KEY, SPEC, CTX0, DEVICE),
}


@pytest.mark.parametrize("attempt", OTHERS.values(), ids=OTHERS)
def test_a_seal_opens_for_its_round_its_device_and_its_key_only(attempt: object) -> None:
    assert callable(attempt)
    with pytest.raises(SecurityError) as refused:
        attempt(sealed())
    assert refused.value.problem is ProblemType.BAD_SIGNATURE


@pytest.mark.parametrize("length", [0, 31, 47, 48, -1, 1])
def test_a_seal_of_another_length_is_not_even_tried(length: int) -> None:
    box = sealed()
    wrong = box + b"\x00" if length == 1 else box[:length]
    with pytest.raises(ProtocolError) as refused:
        open_update(wrong, ROUND_KEY, SPEC, CTX0, DEVICE)
    assert refused.value.problem is ProblemType.ENCODING_REFUSED


WRONG = {
    "not a number": (np.full(8, np.nan), TAIL, "NaN"),
    "infinite": (np.full(8, np.inf), TAIL, "NaN"),
    "beyond the clip": (one_hot(0, 100.1), TAIL, "clip"),
    "a weight of nothing": (UPDATE, [0, *TAIL[1:]], "weight"),
    "more weight than the task allows": (UPDATE, [16, *TAIL[1:]], "weight"),
    "a figure beyond its range": (UPDATE, [2, 2**24, *TAIL[2:]], "examples"),
    "the largest number that fits": (UPDATE, [2, 10, 2**64 - 1, *TAIL[3:]], "train_loss"),
}


@pytest.mark.parametrize(("update", "tail", "reason"), WRONG.values(), ids=WRONG)
def test_s8_what_no_honest_device_seals_is_refused(update: np.ndarray, tail: list[int], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason) as refused:
        open_update(forged(update, tail), ROUND_KEY, SPEC, CTX0, DEVICE)
    assert refused.value.problem is ProblemType.ENCODING_REFUSED


def test_the_written_out_seal_is_the_librarys() -> None:
    opened = open_update(forged(UPDATE, TAIL), ROUND_KEY, SPEC, CTX0, DEVICE)
    assert opened.update.tolist() == UPDATE.tolist()
    assert opened.weight == 2


UNFIT = {
    "too short": (UPDATE[:7], 1, "shape"),
    "not finite": (np.where(UPDATE == 3, np.nan, UPDATE).astype(np.float32), 1, "NaN"),
    "no weight": (UPDATE, 0, "weight"),
    "too much weight": (UPDATE, 16, "weight"),
}


@pytest.mark.parametrize(("update", "weight", "reason"), UNFIT.values(), ids=UNFIT)
def test_c10_what_cannot_be_sent_is_never_sealed(update: np.ndarray, weight: int, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason) as refused:
        sealed(update, weight)
    assert refused.value.problem is ProblemType.ENCODING_REFUSED


def test_the_sum_leaves_out_what_cannot_be_used_and_names_its_sender() -> None:
    devices = [IdentityKey(seeded_random(f"device {number}")(32)) for number in range(4)]
    boxes = {
        device: seal_update(one_hot(number), number + 1, replace(REPORT, examples=5), SPEC, CTX0, device)
        for number, device in enumerate(devices)
    }
    boxes[devices[3]] = boxes[devices[2]]  # somebody else's box under the own name
    opened = OpeningJob(SPEC, CTX0, tuple(devices)).run(boxes.__getitem__, ROUND_KEY)
    assert opened.total.tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert (opened.weight, opened.survivors, opened.report.examples) == (6, 3, 15)
    assert opened.report.train_loss == pytest.approx(1.5)
    assert list(opened.refused) == [devices[3]]
    assert "does not open" in opened.refused[devices[3]]


def test_nothing_that_can_be_used_is_a_sum_of_nothing() -> None:
    opened = OpeningJob(SPEC, CTX0, (DEVICE,)).run(lambda _: bytes(sealed_length(SPEC)), ROUND_KEY)
    assert (opened.weight, opened.survivors, opened.report.train_loss) == (0, 0, None)
