"""The same round by the functions of the package `flwr`, where that is installed: what its users pay today.

Its client's stages run as they are (`flwr.client.mod.secure_aggregation.secaggplus_mod`). Its server's stages need a
running network, so their arithmetic is written out here, with its functions and in its order.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

SIZES: Final = (131_072, 524_288)
"""Parameters of what is measured; the line through both is drawn on to the size that is asked for."""
UPDATE: Final = 0.01
"""Every coordinate of every client's update."""

_STAGES: Final = "flwr.client.mod.secure_aggregation.secaggplus_mod"
_WORKFLOW: Final = "flwr.server.workflow.secure_aggregation.secaggplus_workflow"
_MOD_RANGE, _TARGET_RANGE, _CLIP = 1 << 32, 1 << 22, 8.0  # its server's defaults

Result = TypeVar("Result")
Vector = NDArray[np.float64]
Vectors = list[Any]
"""What flwr masks: an array of one weight, then the arrays of the model."""


@dataclass(frozen=True)
class Setting:
    """A round with complete sharing; the first `dropped` members are lost after they have shared their keys."""

    members: int
    dropped: int
    threshold: int


def is_installed() -> bool:
    """Whether there is anything to compare with."""
    try:
        importlib.import_module(_STAGES)
    except ImportError:
        return False
    return True


def round_cpu_s(setting: Setting, parameters: int) -> float:
    """CPU seconds of all clients and the server; what depends on the number of parameters is drawn on from two sizes.

    That part is linear in it. Short vectors fit the caches better than long ones, so the true cost is rather higher.
    """
    round_ = FlowerRound(setting)
    dealing, _ = _timed(round_.deal)
    few, total = _timed(lambda: round_.upload(SIZES[0]))
    rebuilding, _ = _timed(round_.rebuild)
    few += _timed(lambda: round_.check(round_.open(total)))[0]
    many = _timed(lambda: round_.check(round_.open(round_.upload(SIZES[1]))))[0]
    return dealing + rebuilding + many + (many - few) * (parameters - SIZES[1]) / (SIZES[1] - SIZES[0])


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = process_time()
    result = work()
    return process_time() - start, result


class FlowerRound:
    """One round in memory: complete sharing, equal weights, the same update from everybody."""

    def __init__(self, setting: Setting) -> None:
        self._stages, self._server = importlib.import_module(_STAGES), importlib.import_module(_WORKFLOW)
        self._to_parameters = importlib.import_module("flwr.common").ndarrays_to_parameters
        self._setting = setting
        self._states = {name: self._stages.SecAggPlusState(nid=name) for name in range(1, setting.members + 1)}
        self._alive = [name for name in self._states if name > setting.dropped]
        self._dead = [name for name in self._states if name <= setting.dropped]
        self._public: dict[int, tuple[bytes, bytes]] = {}
        self._inboxes: dict[int, dict[int, bytes]] = {name: {} for name in self._states}
        self._secrets: dict[int, bytes] = {}

    def deal(self) -> None:
        """Stages 0 and 1: everybody's keys, and their shares for everybody."""
        for name, state in self._states.items():
            answer = self._stages._setup(state, self._configs())
            self._public[name] = (answer["pk1"], answer["pk2"])
        for name, state in self._states.items():
            answer = self._stages._share_keys(state, {str(peer): keys for peer, keys in self._public.items()})
            for holder, ciphertext in zip(answer["dsts"], answer["ctxts"], strict=True):
                self._inboxes[holder][name] = ciphertext

    def upload(self, parameters: int) -> Vectors:
        """Stage 2: the survivors' masked vectors, through the bytes that they send, added up."""
        update = self._to_parameters([np.full(parameters, UPDATE, dtype=np.float32)])
        total: Vectors | None = None
        for name in self._alive:
            configs = {"srcs": list(self._inboxes[name]), "ctxts": list(self._inboxes[name].values())}
            answer = self._stages._collect_masked_vectors(self._states[name], configs, 1, update)
            vectors = [self._server.bytes_to_ndarray(content) for content in answer["masked_params"]]
            total = vectors if total is None else self._server.parameters_addition(total, vectors)
        return list(self._server.parameters_mod(total, _MOD_RANGE))

    def rebuild(self) -> None:
        """Stage 3, first half: each member's secret, from the shares that the survivors return."""
        shares: dict[int, list[bytes]] = {name: [] for name in self._states}
        for name in self._alive:
            configs = {"active_nids": self._alive, "dead_nids": self._dead}
            answer = self._stages._unmask(self._states[name], configs)
            for owner, share in zip(answer["nids"], answer["shares"], strict=True):
                shares[owner].append(share)
        self._secrets = {name: self._server.combine_shares(some) for name, some in shares.items()}

    def open(self, total: Vectors) -> Vector:
        """Stage 3, second half: take all masks off; returns the mean update, float64 (parameters,)."""
        server, shapes = self._server, self._server.get_parameters_shape(total)
        for name in self._alive:
            total = server.parameters_subtraction(
                total, server.pseudo_rand_gen(self._secrets[name], _MOD_RANGE, shapes)
            )
        for name in self._dead:
            key = server.bytes_to_private_key(self._secrets[name])
            for peer in (peer for peer in self._states if peer != name):
                seed = server.generate_shared_key(key, server.bytes_to_public_key(self._public[peer][0]))
                combine = server.parameters_addition if name > peer else server.parameters_subtraction
                total = combine(total, server.pseudo_rand_gen(seed, _MOD_RANGE, shapes))
        weight, vectors = server.factor_extract(server.parameters_mod(total, _MOD_RANGE))
        (vector,) = server.dequantize(vectors, _CLIP, _TARGET_RANGE)
        mean: Vector = (vector - (len(self._alive) - 1) * _CLIP) * _TARGET_RANGE / weight
        return mean

    def check(self, mean: Vector) -> None:
        """Raise unless the round gave what went in: a faster wrong sum is no comparison."""
        if not np.allclose(mean, UPDATE, atol=1e-4):
            raise RuntimeError("flwr's round did not give the mean of the updates")

    def _configs(self) -> dict[str, Any]:
        return {
            "sample_num": self._setting.members,
            "share_num": self._setting.members,
            "threshold": self._setting.threshold,
            "clipping_range": _CLIP,
            "target_range": _TARGET_RANGE,
            "mod_range": _MOD_RANGE,
            "max_weight": 1.0,
        }
