"""Where chance comes from: numbers for each purpose, the same on every machine for the same seed and data."""

import hashlib

import numpy as np


def draws(purpose: str, seed: int, digest: str, *parameters: object) -> np.random.RandomState:
    """Return the random numbers for one purpose.

    RandomState and not Generator: numpy promises that its streams stay as they are, so that a partition can be made
    again with a numpy of later years.
    """
    text = "\x1f".join(map(str, ("fedit.partition/1", purpose, seed, digest, *parameters)))
    return np.random.RandomState(np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").astype(np.uint32))
