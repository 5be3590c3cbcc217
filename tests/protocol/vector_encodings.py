"""The golden vectors of updates as ring words and of sums as updates, and of what must be refused on either way."""

from dataclasses import asdict
from functools import partial
from typing import Final

import numpy as np

from fedit_protocol.adapter import Vector as Update
from fedit_protocol.errors import ProtocolError
from fedit_protocol.messages import NoiseSpec, RingSpec
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.noisy_update import encode_noisy
from fedit_protocol.secagg.quantize import decode_sum, encode_update
from fedit_protocol.secagg.ring import as_words, ring_metrics
from fedit_protocol.testing import seeded_random

from .vector_derivations import Vector

SIZE = 8
UPDATE: Final[Update] = np.array([1, -1, 0.5, -0.25, 0.1, 0.003, -0.7, 0], dtype=np.float32)
QUARTER: Final[Update] = UPDATE * np.float32(0.25)
REPORT = ClientReport(examples=1234, train_loss=1.5, held_out_loss=2.25)
ACCOUNTED = NoiseSpec(multiplier=1.0, delta=1e-5)


def encodings() -> list[Vector]:
    """Plain and noisy updates as words; the words of sums as integers, weights and figures."""
    return [*_updates(), *_noisy(), *_sums()]


def ring(
    *, weight: int = 2, members: int = 3, bits: int = 16, noise: NoiseSpec | None = None, sketch: int = 0
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
    ]


def _update(name: str, update: Update, weight: int, spec: RingSpec, report: ClientReport = REPORT) -> Vector:
    seed = seeded_random(f"rounding: {name}")(32)
    asked = {
        "name": f"update: {name}",
        "update": update.astype("<f4").tobytes().hex(),
        "weight": weight,
        "report": {key: value for key, value in asdict(report).items() if key != "clipped_fraction"},
        "ring": spec.model_dump(mode="json"),
        "rounding_seed": seed.hex(),
    }
    try:
        words = encode_update(update, weight, report, spec, seed)
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
    ]


def _sum(name: str, words: bytes, survivors: int, spec: RingSpec) -> Vector:
    asked = {
        "name": f"sum: {name}",
        "words": words.hex(),
        "survivors": survivors,
        "ring": spec.model_dump(mode="json"),
    }
    try:
        found = decode_sum(as_words(words, spec), survivors, spec)
    except ProtocolError as refusal:
        return asked | {"expect": str(refusal.problem)}
    figures = {"ring_sum": found.ring_sum.tolist(), "weight": found.weight, "report": asdict(found.report)}
    return asked | figures | {"sketch": found.sketch.tolist(), "expect": "success"}
