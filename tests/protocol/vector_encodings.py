"""The golden vectors of updates as ring words and of sums as updates, and of what must be refused on either way."""

from dataclasses import asdict, replace
from functools import partial
from typing import Final

import numpy as np

from fedit_protocol.adapter import Vector as Update
from fedit_protocol.errors import ProtocolError
from fedit_protocol.messages import CanarySlots, DomainSlots, NoiseSpec, RingSpec
from fedit_protocol.metrics import CanaryLoss, ClientReport, OwnDomain, Unknown
from fedit_protocol.secagg.noisy_update import encode_noisy
from fedit_protocol.secagg.packing import pack
from fedit_protocol.secagg.quantize import decode_sum, encode_update
from fedit_protocol.secagg.ring import as_words, ring_metrics
from fedit_protocol.task import Quantization
from fedit_protocol.testing import seeded_random

from .canaries import figures_of
from .vector_derivations import Vector

SIZE = 8
UPDATE: Final[Update] = np.array([1, -1, 0.5, -0.25, 0.1, 0.003, -0.7, 0], dtype=np.float32)
QUARTER: Final[Update] = UPDATE * np.float32(0.25)
REPORT = ClientReport(examples=1234, train_loss=1.5, held_out_loss=2.25)
NF4 = Quantization.NF4
LATER = ("clipped_fraction", "domains", "statistics")
"""What a report has that is not asked here, or came later."""
BF16 = CanaryLoss(Quantization.BF16, 2.7183)
DOMAINS = DomainSlots(names=("de", "en", "th"), hidden_among=3)
OWN = {"de": OwnDomain(40, 2.7183), "th": OwnDomain(70_000, 99.0)}
SLOTS = CanarySlots(classes=(NF4, Quantization.BF16), hidden_among=2)
ACCOUNTED = NoiseSpec(multiplier=1.0, delta=1e-5)


def encodings() -> list[Vector]:
    """Plain and noisy updates as words; the words of sums as integers, weights and figures."""
    return [*_updates(), *_noisy(), *_packed(), *_sums()]


def ring(
    *,
    weight: int = 2,
    members: int = 3,
    bits: int = 16,
    noise: NoiseSpec | None = None,
    sketch: int = 0,
    canary: CanarySlots | None = None,
    domains: DomainSlots | None = None,
) -> RingSpec:
    """A ring of few coordinates, of any shape that an offer may have."""
    return RingSpec(
        size=SIZE,
        clip_norm=1.0 if noise else 4.0,
        value_bits=8,
        value_range=0.5 if noise else 1.0,
        max_weight=weight,
        cohort_max=members,
        word_bits=bits,
        metrics=ring_metrics(weight, noise),
        sketch_size=sketch,
        sketch_range=2.0 if sketch else 1.0,
        noise=noise,
        canary=canary,
        domains=domains,
    )


def _updates() -> list[Vector]:
    half = np.concatenate([UPDATE / 2, np.array([1.9, -2.0, 0.3], "<f4")]).astype("<f4")
    spoiled = UPDATE.copy()
    spoiled[3] = np.nan
    return [
        _update("weight 1", UPDATE, 1, ring()),
        _update("weight 2, no held-out rows", UPDATE, 2, ring(), ClientReport(7, 0.25, None)),
        _update("words of 32 bits", UPDATE, 15, ring(weight=15, members=64, bits=32)),
        _update("clipped to the norm", UPDATE * np.float32(8), 1, ring()),
        _update("coordinates beyond the range", UPDATE * np.float32(1.5), 1, ring()),
        _update("with a sketch behind it", half, 1, ring(sketch=3)),
        _update("not a number", spoiled, 1, ring()),
        _update("one coordinate too few", UPDATE[:-1], 1, ring()),
        _update("weight 0", UPDATE, 0, ring()),
        _update("a weight above the largest", UPDATE, 3, ring()),
        _update("a negative loss", UPDATE, 1, ring(), ClientReport(7, -0.25, None)),
        _update("a canary loss in the slot of its class", UPDATE, 1, ring(canary=SLOTS), canary=BF16),
        _update("a canary slot in words of 32 bits", UPDATE, 1, ring(bits=32, canary=SLOTS), canary=BF16),
        _update("no canary loss where there are slots", UPDATE, 1, ring(canary=SLOTS)),
        _update("a negative canary loss", UPDATE, 1, ring(canary=SLOTS), canary=CanaryLoss(NF4, -0.5)),
        _update("losses of two domains of three", UPDATE, 1, ring(domains=DOMAINS), replace(REPORT, domains=OWN)),
        _update("a loss of no domain", UPDATE, 1, ring(domains=DOMAINS), replace(REPORT, domains={"fr": OWN["de"]})),
    ]


def _packed() -> list[Vector]:
    vectors = []
    for bits, word in ((5, "<u2"), (12, "<u2"), (19, "<u4")):
        raw = seeded_random(f"{bits} bits")(11 * int(word[2]))
        drawn = np.frombuffer(raw, "<u2") if bits <= 16 else np.frombuffer(raw, "<u4")
        payload = pack(drawn, bits)
        vectors.append(
            {
                "name": f"packed words: {bits} bits",
                "words": drawn.tobytes().hex(),
                "bits": bits,
                "payload": payload.hex(),
            }
        )
    return vectors


def _update(
    name: str,
    update: Update,
    weight: int,
    spec: RingSpec,
    report: ClientReport = REPORT,
    canary: CanaryLoss | None = None,
) -> Vector:
    seed = seeded_random(f"rounding: {name}")(32)
    asked = {
        "name": f"update: {name}",
        "update": update.astype("<f4").tobytes().hex(),
        "weight": weight,
        "report": {key: value for key, value in asdict(report).items() if key not in LATER},
        "ring": spec.model_dump(mode="json"),
        "rounding_seed": seed.hex(),
    }
    if canary is not None:
        asked["canary"] = asdict(canary)
    if report.domains:
        asked["domains"] = {name: asdict(own) for name, own in report.domains.items()}
    try:
        words = encode_update(update, weight, report, spec, seed, canary)
    except ProtocolError as refusal:
        return asked | {"expect": str(refusal.problem)}
    return asked | {"words": words.tobytes().hex(), "expect": "success"}


def _noisy() -> list[Vector]:
    vectors = []
    for variance in (0.5, 400.0, 1e6):
        spec = ring(weight=1, bits=32, noise=ACCOUNTED)
        draw = seeded_random(f"noise of variance {variance}")
        seeds = draw(32), draw(32)
        words = encode_noisy(QUARTER, spec, variance, seeds)
        vectors.append(
            {
                "name": f"noisy update: variance {variance}",
                "update": QUARTER.astype("<f4").tobytes().hex(),
                "ring": spec.model_dump(mode="json"),
                "variance": variance,
                "rounding_seed": seeds[0].hex(),
                "noise_seed": seeds[1].hex(),
                "words": words.tobytes().hex(),
            }
        )
    return vectors


def _sums() -> list[Vector]:
    spec = ring()
    one = partial(encode_update, ring=spec, noise_seed=bytes(32))
    two = one(UPDATE, 2, REPORT) + one(UPDATE * np.float32(-0.5), 1, ClientReport(6, 0.5, None))
    beyond, longest, unweighted = two.copy(), two.copy(), two.copy()
    beyond[0] = 3 * 127 + 1
    longest[:SIZE] = 3 * 127
    unweighted[SIZE] = 1
    wide = ring(sketch=3)
    sketched = encode_update(np.concatenate([UPDATE, UPDATE[:3]]), 1, ClientReport(1, 0.0, None), wide, bytes(32))
    return [
        _sum("of two", two.tobytes(), 2, spec),
        _sum("with a sketch", sketched.tobytes(), 1, wide),
        _sum("a coordinate that no weight of 3 reaches", beyond.tobytes(), 2, spec),
        _sum("longer than the clip", longest.tobytes(), 2, spec.model_copy(update={"clip_norm": 1.0})),
        _sum("a weight below the number of survivors", unweighted.tobytes(), 2, spec),
        _sum("more examples than one survivor can have", two.tobytes(), 1, spec),
        _sum("a masked vector", seeded_random("masked")(two.nbytes), 2, spec),
        *_canary_sums(),
    ]


def _canary_sums() -> list[Vector]:
    spec = ring(canary=SLOTS)
    one = partial(encode_update, UPDATE, 1, ClientReport(6, 0.5, None), spec, bytes(32))
    total = one(BF16) + one(CanaryLoss(Quantization.BF16, 1.5)) + one(CanaryLoss(NF4, 29.0))
    opened: dict[Quantization, int | Unknown] = {NF4: Unknown.DROPPED, Quantization.BF16: 2}
    return [
        _sum("of a class that is read and one that is not", total.tobytes(), 3, spec, opened),
        _sum("with a slot that two have filled, not three", total.tobytes(), 3, spec, {**opened, Quantization.BF16: 3}),
    ]


def _sum(
    name: str, words: bytes, survivors: int, spec: RingSpec, canary: dict[Quantization, int | Unknown] | None = None
) -> Vector:
    asked = {
        "name": f"sum: {name}",
        "words": words.hex(),
        "survivors": survivors,
        "ring": spec.model_dump(mode="json"),
    }
    if canary is not None:
        asked["canary"] = dict(canary)
    try:
        found = decode_sum(as_words(words, spec), survivors, spec, canary=canary or {})
    except ProtocolError as refusal:
        return asked | {"expect": str(refusal.problem)}
    figures = {"ring_sum": found.ring_sum.tolist(), "weight": found.weight, "report": figures_of(found.report)}
    return asked | figures | {"sketch": found.sketch.tolist(), "expect": "success"}
