"""SCAFFOLD's control variates: what they say, and that unlike devices no longer pull the model off its place."""

import numpy as np
import pytest

from fedit_protocol.control_variates import next_control, next_own

CURVATURES = np.array([[0.2, 4.0], [1.0, 1.0], [4.0, 0.1]])
MINIMA = np.array([[-1.0, 2.0], [4.0, 0.0], [0.5, -3.0]])
BEST = (CURVATURES * MINIMA).sum(axis=0) / CURVATURES.sum(axis=0)
"""Where Σ a_k (x − m_k)² / 2 is least."""
RATE, STEPS = 0.05, 20


def federated(rounds: int, corrected: bool, present: int = 3) -> np.ndarray:
    """Return where rounds of gradient descent on three unlike quadratics come to, `present` devices in each."""
    random = np.random.default_rng(1)
    x, control, own = np.zeros(2), np.zeros(2), np.zeros((3, 2))
    for _ in range(rounds):
        there = random.permutation(3)[:present]
        updates = []
        for k in there:
            y = x.copy()
            for _ in range(STEPS):
                y = y - RATE * (CURVATURES[k] * (y - MINIMA[k]))
                y = y - RATE * (control - own[k]) if corrected else y
            updates.append(y - x)
        for k, update in zip(there, updates, strict=True):
            own[k] = next_own(own[k], control, update.astype(np.float32), RATE * STEPS)
        change = np.mean(updates, axis=0)
        control = next_control(control, change, RATE * STEPS, present / 3)
        x = x + change
    return x


def test_unlike_devices_no_longer_pull_the_model_off_its_place() -> None:
    assert np.linalg.norm(federated(200, corrected=False) - BEST) > 0.3
    assert np.linalg.norm(federated(200, corrected=True) - BEST) < 1e-4


def test_it_works_with_a_part_of_the_devices_in_each_round() -> None:
    assert np.linalg.norm(federated(600, corrected=True, present=2) - BEST) < 1e-3


def test_the_sum_of_what_devices_would_send_follows_from_the_sum_of_their_updates() -> None:
    """So the paper's second vector need not travel: c moves by K / N of the mean of c_k⁺ − c_k."""
    random = np.random.default_rng(2)
    control, own = random.normal(size=5), random.normal(size=(3, 5))
    updates = random.normal(size=(3, 5)).astype(np.float32)
    after = np.array([next_own(own[k], control, updates[k], 0.7) for k in range(3)])
    expected = control + 0.5 * (after - own).mean(axis=0)
    assert next_control(control, updates.astype(np.float64).mean(axis=0), 0.7, 0.5) == pytest.approx(expected)
