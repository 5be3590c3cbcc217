"""Words of b bits on the wire: what is packed comes back, any range of it, and sums are those of whole words."""

import numpy as np
import pytest

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import ClientReport
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.packing import pack, packed_bytes, unpack
from fedit_protocol.secagg.quantize import signed
from fedit_protocol.secagg.ring import as_payload, check_ring, payload_length, word_count, word_reader, word_type
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound, small_task

MEMBER = IdentityKey(bytes(32))


def packed_task(members: int, size: int, *, packed: bool = True, **encoding: object) -> TaskDocument:
    document = small_task(members, size)
    values = document.task.encoding.model_copy(update={"packed": packed, "max_weight": 1, **encoding})
    return document.model_copy(update={"task": document.task.model_copy(update={"encoding": values})})


def ring_of(document: TaskDocument) -> RingSpec:
    return sum_specs(document)[0].ring


@pytest.mark.parametrize("bits", [5, 8, 11, 12, 16, 17, 29, 32])
@pytest.mark.parametrize("count", [1, 8, 21])
def test_packed_words_come_back(bits: int, count: int) -> None:
    word = np.dtype("<u2") if bits <= 16 else np.dtype("<u4")
    drawn = np.random.default_rng(bits).integers(0, 2**bits, count, dtype=np.uint64)
    words = drawn.astype("<u2") if bits <= 16 else drawn.astype("<u4")
    content = pack(words, bits)
    assert len(content) == packed_bytes(count, bits)
    assert unpack(np.frombuffer(content, np.uint8), count, bits, word).tolist() == words.tolist()
    as_number = int.from_bytes(content, "little")
    assert [(as_number >> (bits * place)) & (2**bits - 1) for place in range(count)] == words.tolist()


def test_a_range_is_read_without_its_neighbours() -> None:
    ring = ring_of(packed_task(5, 30))
    assert word_type(ring) == np.dtype("<u2")
    words = np.arange(word_count(ring)).astype(np.uint16)
    content = np.frombuffer(as_payload(words, ring), np.uint8)
    read = word_reader(ring, lambda member, start, stop: content[start:stop])
    assert read(MEMBER, 8, 19).tolist() == list(range(8, 19))
    assert read(MEMBER, 0, len(words)).tolist() == words.tolist()
    with pytest.raises(ValueError, match="multiple of eight"):
        read(MEMBER, 3, 8)


def test_negative_numbers_are_those_of_the_narrow_ring() -> None:
    ring = ring_of(packed_task(5, 8))
    values = np.array([-635, -1, 0, 635], dtype=np.int16)
    words = values.view(word_type(ring)) & np.uint16(2**ring.packed_bits - 1)
    assert ring.packed_bits == 11  # 2 * 5 * 127 + 1 values
    assert signed(words, ring).tolist() == values.tolist()


@pytest.mark.parametrize("value_bits", [4, 8, 12])
def test_a_packed_round_sums_as_a_plain_one_does_in_fewer_bytes(value_bits: int) -> None:
    updates = [(np.linspace(-1, 1, 40) * (number - 2) / 2).astype(np.float32) for number in range(5)]
    reports = [ClientReport(1000 + number, 1.25, 2.5) for number in range(5)]
    found = {}
    for packed in (False, True):
        document = packed_task(5, 40, packed=packed, value_bits=value_bits)
        round_ = MemoryRound(MemoryFederation(5), document, drops={3: "upload"}).run(updates, [1] * 5, reports)
        assert round_.aggregate is not None, round_.server.failure
        found[packed] = round_.aggregate
    assert found[True].report == found[False].report
    unit = 1.0 / (2 ** (value_bits - 1) - 1)
    exact = sum(update for number, update in enumerate(updates) if number != 3)
    assert found[True].total == pytest.approx(exact, abs=4 * unit)
    plain, narrow = (payload_length(ring_of(packed_task(5, 40_000, packed=each, value_bits=value_bits)))
                     for each in (False, True))  # fmt: skip
    assert narrow / plain == pytest.approx({4: 7 / 16, 8: 11 / 16, 12: 15 / 16}[value_bits], rel=1e-3)


def test_a_ring_of_too_few_bits_is_refused() -> None:
    ring = ring_of(packed_task(5, 8))
    check_ring(ring)
    for bits in (ring.packed_bits - 1, 17):
        with pytest.raises(ConfigError, match="too narrow"):
            check_ring(ring.model_copy(update={"packed_bits": bits}))
