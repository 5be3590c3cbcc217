"""The table `[optimizer]` of a task: from the round's mean change to the step that the global adapter makes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field, model_validator

from fedit_protocol.task_tables import Section, absent_at

if TYPE_CHECKING:
    from fedit_protocol.task import Task


class OptimizerName(StrEnum):
    """The rules of `fedit_protocol.optimizer`."""

    FEDAVG = "fedavg"
    FEDAVGM = "fedavgm"
    NESTEROV = "nesterov"
    FEDADAM = "fedadam"
    FEDYOGI = "fedyogi"
    FEDADAGRAD = "fedadagrad"


MOMENTUM_RULES: Final = frozenset({OptimizerName.FEDAVGM, OptimizerName.NESTEROV})
ADAPTIVE_RULES: Final = frozenset({OptimizerName.FEDADAM, OptimizerName.FEDYOGI, OptimizerName.FEDADAGRAD})

FEW_ROUNDS: Final = 5
"""With fewer rounds a rule with memory has nothing to remember: plain FedAvg is the advice."""

NORMALISED_METHODS: Final = frozenset({"fedavg", "ffa_lora", "rolora", "fedsa", "ditto"})
"""Methods whose messages are linear in the update, so that it can be divided by the device's steps."""

_SHORT: Final = 20
"""Up to so many rounds Nesterov's momentum is 0.5 unless the task says otherwise: its gain is η / (1 − μ)."""


class OptimizerSpec(Section):
    """`[optimizer]`: what the server makes of the mean change of a round; without the table it is added as it is."""

    name: OptimizerName = Field(
        OptimizerName.FEDAVG,
        description="fedavg, fedavgm (momentum), nesterov (outer Nesterov, DiLoCo), fedadam, fedyogi or fedadagrad",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=100,
        description="eta, the server's step. Left out: 1 in fedavg, 1 - momentum in fedavgm (a moving average; 1 is the"
        " classical form), 0.7 in nesterov; in the adaptive rules 2, or 0.001 if not relative",
    )
    momentum: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="fedavgm, nesterov: what is kept of earlier steps. Left out: 0.9; in nesterov 0.5 up to 20 rounds",
    )
    beta1: float = Field(0.9, ge=0, lt=1, exclude_if=absent_at(0.9), description="fedadam, fedyogi: of the mean")
    beta2: float = Field(0.99, ge=0, lt=1, exclude_if=absent_at(0.99), description="fedadam, fedyogi: of its square")
    tau: float | None = Field(
        None,
        gt=0,
        le=100,
        description="adaptive rules: added to the root of the mean square. Left out: 0.1, or 0.001 if not relative",
    )
    relative: bool = Field(
        True,
        exclude_if=absent_at(True),
        description="adaptive rules: learning_rate and tau count in root mean squares of the first round's change, that"
        " no one knows beforehand; false: as they are",
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1, exclude_if=absent_at(0.0), description="fedadam: decoupled, times eta (FedAdamW)"
    )
    fednova: bool = Field(
        False,
        exclude_if=absent_at(False),
        description="FedNova: each update is divided by its device's steps before it is summed, and the mean multiplied"
        " by the mean of the steps, so that devices that make more of them do not pull further",
    )

    @model_validator(mode="after")
    def _fields_belong_to_the_rule(self) -> Self:
        if self.momentum is not None and self.name not in MOMENTUM_RULES:
            raise ValueError(
                f"optimizer.momentum belongs to fedavgm and nesterov, not to {self.name}: leave it out, or set"
                " optimizer.name = fedavgm"
            )
        plain = {"beta1": 0.9, "beta2": 0.99, "tau": None, "relative": True}
        other = [name for name, default in plain.items() if getattr(self, name) != default]
        if other and self.name not in ADAPTIVE_RULES:
            raise ValueError(
                f"optimizer.{other[0]} belongs to fedadam, fedyogi and fedadagrad, not to {self.name}: leave it out, or"
                " set optimizer.name = fedadam"
            )
        if self.weight_decay and self.name is not OptimizerName.FEDADAM:
            raise ValueError(
                f"optimizer.weight_decay belongs to fedadam, not to {self.name}: leave it out, or set"
                " optimizer.name = fedadam"
            )
        return self

    @property
    def remembers(self) -> bool:
        """Whether the rule has a memory from round to round."""
        return self.name is not OptimizerName.FEDAVG

    @property
    def plain(self) -> bool:
        """Whether the mean change is added as it is."""
        return not self.remembers and self.learning_rate in (None, 1.0)


@dataclass(frozen=True)
class Rates:
    """A rule with every number filled in."""

    name: OptimizerName
    learning_rate: float
    momentum: float
    beta1: float
    beta2: float
    tau: float
    relative: bool
    weight_decay: float

    @classmethod
    def of(cls, spec: OptimizerSpec, rounds: int) -> Self:
        """Fill in what the task has left out; `rounds` is how many the task shall have."""
        adaptive = spec.name in ADAPTIVE_RULES
        relative = adaptive and spec.relative
        short = spec.name is OptimizerName.NESTEROV and rounds <= _SHORT
        momentum = spec.momentum if spec.momentum is not None else 0.5 if short else 0.9
        defaults = {OptimizerName.FEDAVG: 1.0, OptimizerName.FEDAVGM: 1 - momentum, OptimizerName.NESTEROV: 0.7}
        return cls(
            name=spec.name,
            learning_rate=spec.learning_rate or defaults.get(spec.name, 2.0 if relative else 1e-3),
            momentum=momentum,
            beta1=spec.beta1,
            beta2=spec.beta2,
            tau=spec.tau or (0.1 if relative else 1e-3),
            relative=relative,
            weight_decay=spec.weight_decay,
        )


def check_optimizer(task: "Task") -> None:
    """Raise ValueError with the reason and the nearest valid setting if FedNova does not fit the task."""
    if not task.optimizer.fednova:
        return
    where = "optimizer.fednova"
    if task.privacy:
        raise ValueError(
            f"{where} sums the devices' steps, and [privacy] covers no figures: leave it out; with training.local_steps"
            " all devices make the same steps, and there is nothing to divide"
        )
    if task.method.name not in NORMALISED_METHODS:
        raise ValueError(
            f"{where} divides updates, which method.name = {task.method.name} is not linear in: take fedavg"
        )
    if task.fairness and task.fairness.rule == "qffl":
        raise ValueError(f"{where} divides the updates whose length fairness.rule = qffl needs: take term or afl")
    if not task.training.most_steps:
        raise ValueError(f"{where} needs training.max_steps: without it a device could claim any number of steps")
    if task.round.combine != "weighted":
        raise ValueError(f"{where} needs round.combine = weighted: the mean of the steps is that of all cohorts")


def optimizer_advice(task: "Task") -> str:
    """Return what an operator should hear about a valid choice; empty if nothing."""
    if task.optimizer.remembers and task.round.rounds < FEW_ROUNDS:
        name, rounds = task.optimizer.name, task.round.rounds
        return f"optimizer.name = {name} has little to remember in {rounds} rounds: below {FEW_ROUNDS} take fedavg"
    return ""
