"""All chance of a fleet: every draw is named, and comes from the fleet's one seed, so that no order of events changes
it."""

import hashlib

import numpy as np


def draws(seed: int, *what: object) -> np.random.Generator:
    """Return the random numbers of one named thing: the same for the same seed and name, on every machine."""
    return np.random.default_rng(int.from_bytes(secret_of(seed, *what), "big"))


def secret_of(seed: int, *what: object) -> bytes:
    """Return 32 bytes for one named thing, such as the seed of one client's training in one round."""
    return hashlib.sha256("/".join(map(str, ("fedit fleet", seed, *what))).encode()).digest()
