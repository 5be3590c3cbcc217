"""The same federation by Flower and by FedIT, same base, rows, seeds and steps: loss, bytes, and what is not training.

Seconds are those of this process on its cores, whatever else the machine does, without loading and measuring.

    python -m examples.fedit_paper.beside_flower --profile cpu --rounds 2 --clients 4

Flower's own server loop, FedAvg strategy and serialisation run in this process (package `flwr`, version 1.42). Its
clients here are proxies that train as ours do. Flower sends the adapter in float32 and its server sees every client's;
FedIT's server sees the sum that the masks let open.

No extra of FedIT brings `flwr`: it wants rich below 15 and typer below 0.21, and FedIT newer ones. What is used of it
here needs neither, so it is installed without what it asks for: INSTALL.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from fedit_client.simulation import Carrier, Federation, Learner, LocalWork, VirtualClient, train_seed
from fedit_client.simulation.traffic import bytes_down, bytes_up
from fedit_protocol.adapter import Vector
from fedit_protocol.errors import EvaluationError
from fedit_protocol.methods import RoundStart
from fedit_protocol.task import TaskDocument

from .__main__ import bench_of, parser, told
from .plan import read_profile, read_rows
from .runner import Bench, by_category, rows_told

INSTALL: Final = "pip install --no-deps flwr==1.42.0 grpcio iterators pycryptodome"


@dataclass
class Timed:
    """A learner that knows how long it has computed for training."""

    learner: Learner
    seconds: float = 0.0

    def train(self, work: LocalWork, start: RoundStart) -> Any:
        """Train, and add up the time."""
        begun = time.process_time()
        try:
            return self.learner.train(work, start)
        finally:
            self.seconds += time.process_time() - begun


@dataclass
class Flower:
    """Flower's server and strategy over proxies of virtual clients."""

    document: TaskDocument
    clients: Sequence[VirtualClient]
    learner: Timed
    seed: int
    folder: Path
    bytes_up: int = 0
    bytes_down: int = 0
    _flwr: Any = field(default_factory=lambda: importlib.import_module("flwr.common"))
    _servers: Any = field(default_factory=lambda: importlib.import_module("flwr.server"))
    _strategies: Any = field(default_factory=lambda: importlib.import_module("flwr.server.strategy"))
    _proxies: Any = field(default_factory=lambda: importlib.import_module("flwr.server.client_proxy"))

    def run(self, first: Vector) -> Vector:
        """Run all rounds and return the adapter."""
        strategy = self._strategies.FedAvg(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=len(self.clients),
            min_available_clients=len(self.clients),
            on_fit_config_fn=_numbered,
            initial_parameters=self._flwr.ndarrays_to_parameters([first]),
        )
        manager = self._servers.SimpleClientManager()
        for place in range(len(self.clients)):
            manager.register(self._proxy(place))
        flower = self._servers.Server(client_manager=manager, strategy=strategy)
        flower.set_max_workers(1)  # one base, one after another
        flower.fit(num_rounds=self.document.task.round.rounds, timeout=None)
        (adapter,) = self._flwr.parameters_to_ndarrays(flower.parameters)
        return np.asarray(adapter, np.float32)

    def _proxy(self, place: int) -> Any:
        outer, base = self, self._proxies.ClientProxy

        class Proxy(base):  # type: ignore[misc, valid-type]  # flwr is loaded when it is there
            def fit(self, ins: Any, timeout: float | None, group_id: int | None) -> Any:
                return outer.fit(place, ins)

        Proxy.__abstractmethods__ = frozenset()  # nothing else is asked of it
        return Proxy(str(place))

    def fit(self, place: int, ins: Any) -> Any:
        """Train as one client does on what Flower's server has sent, and answer as its client would."""
        client, number = self.clients[place], int(ins.config["round"]) - 1
        self.bytes_down += sum(map(len, ins.parameters.tensors))
        (adapter,) = self._flwr.parameters_to_ndarrays(ins.parameters)
        work = LocalWork(client.records, train_seed(self.seed, number, client.name), self.folder)
        found = self.learner.train(work, RoundStart(self.document, number, np.asarray(adapter, np.float32)))
        sent = self._flwr.ndarrays_to_parameters([adapter + found.update])
        self.bytes_up += sum(map(len, sent.tensors))
        status = self._flwr.Status(self._flwr.Code.OK, "")
        return self._flwr.FitRes(status, sent, len(client.records), {})


def _numbered(number: int) -> dict[str, int]:
    return {"round": number}


def compare(bench: Bench, clients: int, rounds: int, seed: int) -> list[dict[str, float | str]]:
    """Return one line each for Flower, FedIT with plain sums, on the ring, and through the masked machines."""
    row = next(row for row in read_rows() if row.name == "fedit")
    document, learner, people = bench.prepared(row, seed)
    people = people[:clients]
    shape = document.task.round.model_copy(update={"rounds": rounds, "cohort_size": clients})
    document = document.model_copy(update={"task": document.task.model_copy(update={"round": shape})})
    lines: list[dict[str, float | str]] = []
    with TemporaryDirectory() as name:
        for carrier in Carrier:
            timed, begun = Timed(learner), time.process_time()
            federation = Federation(document, people, Path(name) / carrier, seed, carrier)
            adapter = federation.run(timed).adapter
            seconds = time.process_time() - begun
            lines.append(
                {
                    "what": f"FedIT, {carrier}",
                    "loss": mean_loss(bench, learner, adapter),
                    "MB up": (4 * document.layout.size if carrier is Carrier.FLOAT else bytes_up(document, 0)) / 1e6,
                    "MB down": bytes_down(document, {}) / 1e6,
                    "s training": timed.seconds,
                    "s besides": seconds - timed.seconds,
                }
            )
        timed = Timed(learner)
        flower = Flower(document, people, timed, seed, Path(name))
        first, begun = Federation(document, people, Path(name) / "first", seed).begun().adapter, time.process_time()
        adapter, each = flower.run(first), clients * rounds
        seconds = time.process_time() - begun
        lines.append(
            {
                "what": "Flower, FedAvg",
                "loss": mean_loss(bench, learner, adapter),
                "MB up": flower.bytes_up / each / 1e6,
                "MB down": flower.bytes_down / each / 1e6,
                "s training": timed.seconds,
                "s besides": seconds - timed.seconds,
            }
        )
    return lines


def mean_loss(bench: Bench, learner: Learner, adapter: Vector) -> float:
    """Return the loss on the test rows, mean over categories."""
    rows = bench.rows("test")
    return fmean(by_category(rows_told(learner.measure(adapter, rows), rows)).values())


def main() -> int:
    """Parse the arguments, run both, print a table and a line of JSON. Raises EvaluationError V003 without Flower."""
    arguments = argparse.ArgumentParser(parents=[parser()], add_help=False, conflict_handler="resolve")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--clients", type=int, default=4)
    options = arguments.parse_args()
    if find_spec("flwr") is None:
        raise EvaluationError("Flower is not installed here", code="V003", fix=INSTALL)
    bench = bench_of(read_profile(options.profile), options, options.out or Path("build") / "beside_flower")
    lines = compare(bench, options.clients, options.rounds, 1)
    names = list(lines[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for line in lines:
        print("| " + " | ".join(shown(line[name]) for name in names) + " |")
    print(json.dumps(lines))
    return 0


def shown(value: float | str) -> str:
    """Return a figure as a person reads it."""
    return value if isinstance(value, str) else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(told(main))
