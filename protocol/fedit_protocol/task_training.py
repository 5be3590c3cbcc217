"""The table `[training]` of a task: what a device does with its rows in one round (TASK.md)."""

import math
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from fedit_protocol.task_tables import Section, absent_at


class Schedule(StrEnum):
    """The learning rate within one round."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Optimizer(StrEnum):
    """AdamW, its moments in float32 or in 8 bits; a device without 8 bits takes float32, and says so (ADR 0034)."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"


class ProximalForm(StrEnum):
    """Where FedProx pulls: in the loss, or as a step of its own behind the optimizer's."""

    LOSS = "loss"
    DECOUPLED = "decoupled"


class Batching(StrEnum):
    """How rows of unlike length meet in one pass of the model; what a step learns from does not depend on it."""

    PACKED = "packed"
    GROUPED = "grouped"
    PADDED = "padded"


class TrainingSpec(Section):
    """`[training]`: what a client does with its rows in one round."""

    local_steps: int = Field(10, ge=0, le=100_000, description="optimizer steps in a round; 0 means `epochs` decides")
    epochs: float = Field(1.0, gt=0, le=100, description="passes over the rows, used when local_steps is 0")
    max_steps: int = Field(
        0,
        ge=0,
        le=100_000,
        exclude_if=absent_at(0),
        description="most optimizer steps in a round where epochs decide, however many rows there are; 0 means any",
    )
    batch_size: int = Field(8, ge=1, le=4096, description="rows behind one optimizer step")
    micro_batch_size: int = Field(4, ge=1, le=4096, description="rows in memory at once; must divide batch_size")
    batching: Batching = Field(
        Batching.PACKED,
        exclude_if=absent_at(Batching.PACKED),
        description="packed: rows share one sequence, none sees another; grouped: padded beside rows of like length; "
        "padded: in the order they come",
    )
    learning_rate: float = Field(3e-4, gt=0, le=1, description="peak learning rate of AdamW")
    schedule: Schedule = Field(Schedule.LINEAR, description="constant, linear (to 0) or cosine (to 0) within a round")
    optimizer: Optimizer = Field(
        Optimizer.ADAMW,
        exclude_if=absent_at(Optimizer.ADAMW),
        description="adamw (float32), adamw_8bit or paged_adamw_8bit (moments in 8 bits, where a device can)",
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, le=1000, description="each step's gradient is clipped to this L2 norm")
    proximal: float = Field(
        0.0,
        ge=0,
        le=100,
        exclude_if=absent_at(0.0),
        description="FedProx: mu, how strongly training is drawn back to the global adapter; 0 means not at all",
    )
    proximal_form: ProximalForm = Field(
        ProximalForm.LOSS,
        exclude_if=absent_at(ProximalForm.LOSS),
        description="loss: mu/2 times the squared distance is added to the loss; decoupled: a step of its own, as"
        " AdamW does it with weight decay",
    )
    held_out_fraction: float = Field(
        0.05, ge=0, le=0.5, description="share of the rows kept for evaluation on the device"
    )
    evaluate_every: int = Field(
        0,
        ge=0,
        le=100_000,
        exclude_if=absent_at(0),
        description="steps after which a device looks at the rows that it keeps for evaluation, again and again; it "
        "sends the adapter of the best of these steps, not of the last one; 0 means the last",
    )

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            most = min(self.micro_batch_size, self.batch_size)
            nearest = next(rows for rows in range(most, 0, -1) if self.batch_size % rows == 0)
            raise ValueError(
                f"micro_batch_size = {self.micro_batch_size} must divide batch_size = {self.batch_size}: set"
                f" micro_batch_size = {nearest}"
            )
        if self.max_steps and self.local_steps:
            raise ValueError("max_steps bounds what epochs decide: set local_steps = 0, or leave it out")
        if self.evaluate_every and not self.held_out_fraction:
            raise ValueError("evaluate_every needs rows to look at: held_out_fraction above 0")
        return self

    def rows_trained(self, rows: int) -> int:
        """Return how many rows a device with so many trains on in a round, each counted as often as it is."""
        wanted = self.local_steps * self.batch_size or max(1, round(self.epochs * rows))
        return min(wanted, (self.most_steps or wanted) * self.batch_size)

    def steps_of(self, rows: int) -> int:
        """Return how many optimizer steps that is."""
        return -(-self.rows_trained(rows) // self.batch_size)

    @property
    def most_steps(self) -> int:
        """How many optimizer steps a device makes at most in a round; 0 where nothing bounds them."""
        return self.local_steps or self.max_steps


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step counted from 0; there is no warm-up."""
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.LINEAR:
            return 1 - step / steps
        case Schedule.COSINE:
            return (1 + math.cos(math.pi * step / steps)) / 2
