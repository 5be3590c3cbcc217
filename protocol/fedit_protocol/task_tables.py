"""The tables `[encoding]`, `[privacy]`, `[method]` and `[gates]` of a task (TASK.md); `task` has the others."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """One table of the task file: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names sorted; raises ValueError if one is there twice."""
    if len(set(names)) != len(names):
        raise ValueError("the same name stands there twice")
    return tuple(sorted(names))


def ordered(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers from the least on; raises ValueError if one is there twice."""
    if len(set(numbers)) != len(numbers):
        raise ValueError("the same number stands there twice")
    return tuple(sorted(numbers))


def absent_at(default: object) -> Callable[[object], bool]:
    """Return the rule of a field that came later: left out of the encoding while it has its default.

    So documents from before keep their bytes and their digests (SPEC, section 10).
    """
    return lambda value: value == default


class EncodingSpec(Section):
    """`[encoding]`: how a float update becomes ring integers (SPEC, section 6)."""

    clip_norm: float = Field(10.0, gt=0, le=1e6, description="L2 bound of one client's update")
    value_bits: int = Field(8, ge=4, le=16, description="q: a coordinate becomes one of 2^q - 1 values")
    value_range: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="r: largest coordinate that is kept; 0 means 1.05 x the sum of the learning rates",
    )
    max_weight: int = Field(15, ge=1, le=1024, description="w_max: largest integer weight of one client")
    rows_per_weight: int = Field(100, ge=1, le=10**6, description="a client weighs round(rows / this), 1 to max_weight")
    packed: bool = Field(
        False,
        exclude_if=absent_at(False),
        description="true: a word takes as many bits on the wire as the sum of a cohort needs, instead of 16 or 32",
    )


class PrivacySpec(Section):
    """`[privacy]`, optional: devices add noise, so that a sum bounds what it says about each of them."""

    noise_multiplier: float = Field(
        gt=0, le=1000, description="z: standard deviation of a sum's noise over clip_norm, from its honest devices"
    )
    delta: float = Field(1e-5, gt=0, le=1e-4, description="the delta that epsilon is stated for")
    accept_weak: bool = Field(
        False, description="true: publish although epsilon says little or the noise drowns what is learned"
    )


class MethodName(StrEnum):
    """The aggregation methods (`fedit_protocol.methods`); what each of them goes together with: `method_rules`."""

    FEDAVG = "fedavg"
    FEDIT_RS = "fedit_rs"
    FEDIT_RS1 = "fedit_rs1"
    SCAFFOLD = "scaffold"
    FFA_LORA = "ffa_lora"
    ROLORA = "rolora"
    FEDSVD = "fedsvd"
    NESTED = "nested"
    FEDSA = "fedsa"
    DITTO = "ditto"
    FEDALT = "fedalt"
    FED_SB = "fed_sb"
    RAVAN = "ravan"
    FEDKSEED = "fedkseed"
    FLORA = "flora"
    FLEXLORA = "flexlora"
    FEDEX_LORA = "fedex_lora"


class MethodSpec(Section):
    """`[method]`: from the aggregate to the next global adapter."""

    name: MethodName = Field(
        MethodName.FEDAVG,
        description="fedavg: add the weighted mean of the updates; fedit_rs: that, and by a second masked sum the part"
        " of the mean product B·A that averaging the factors loses, carried along as a side delta; fedit_rs1:"
        " the same from one sum that is a fifth longer, for devices that cannot wait; ffa_lora: A stays as"
        " it is, B is trained; rolora: B and A in turn; fedsvd: ffa_lora with B·A factored anew after a round;"
        " nested: fedavg among devices of the ranks in `[adapter] ranks`, each slice averaged over those who have it;"
        " fedsa: the factors A are averaged, each device keeps its own B; ditto: as fedavg, and each device keeps an"
        " adapter of its own near the shared one; fedalt: the mean of the devices' own adapters, which each mixes with"
        " its own, token by token; fed_sb: sum one core of rank x rank numbers a layer, between frozen bases; ravan:"
        " several smaller ones with scales; fedkseed: no gradients, sum steps along public directions; scaffold:"
        " control variates against drift, for devices that come back (set population); flora, flexlora, fedex_lora:"
        " baselines of mode trusted, from the exact mean product of single updates: flora adds it to a side delta and"
        " begins anew, flexlora cuts it to the rank, fedex_lora is fedavg with what that loses as a side delta",
    )
    population: int = Field(
        0, ge=0, le=100_000, exclude_if=absent_at(0), description="scaffold: N, how many devices the task has in all"
    )
    sketch_rank: int = Field(
        0, ge=0, le=64, description="fedit_rs, fedit_rs1: s, columns of the sketch; 0 means the adapter's rank"
    )
    sketch_probes: int = Field(
        4, ge=1, le=16, description="fedit_rs, fedit_rs1: h, further columns that estimate what is missed"
    )
    sketch_adapts: bool = Field(
        False,
        exclude_if=absent_at(False),
        description="fedit_rs, fedit_rs1: true: the next sketch has twice as many columns if more than 2 % of an update"
        " is still missed, half as many below 0.5 %; at most half of what the least cohort's residual may have",
    )
    audit_every: int = Field(
        0,
        ge=0,
        le=1000,
        exclude_if=absent_at(0),
        description="fedavg, ditto, scaffold: every so many versions four probes in the sum say how much of the mean"
        " product averaging the factors loses (a fifth more bytes in that round); 0 means never",
    )
    diversity: bool = Field(
        False,
        exclude_if=absent_at(False),
        description="true: rounds say how unlike the devices' updates are (gradient diversity), from the square of each"
        " update's length, one more number in the masked sum",
    )
    refactor_every: int = Field(
        1,
        ge=1,
        le=1000,
        exclude_if=absent_at(1),
        description="fedsvd: every so many versions the product is factored anew",
    )
    personal_steps: int = Field(
        4,
        ge=0,
        le=10_000,
        exclude_if=absent_at(4),
        description="fedsa: steps in which a new device trains its own B alone, at most half of its first round",
    )
    personal_pull: float = Field(
        0.1,
        ge=0,
        le=1000,
        exclude_if=absent_at(0.1),
        description="ditto: lambda, how strongly the personal adapter is drawn to the shared one",
    )
    heads: int = Field(
        4, ge=2, le=64, exclude_if=absent_at(4), description="ravan: h, cores of each layer; must divide adapter.rank"
    )
    seeds: int = Field(
        4096,
        ge=8,
        le=1 << 20,
        exclude_if=absent_at(4096),
        description="fedkseed: J, public directions, sent each round",
    )
    probe_step: float = Field(
        1e-3,
        gt=0,
        le=1,
        exclude_if=absent_at(1e-3),
        description="fedkseed: how far each number of the factors B is moved up and down to see a slope",
    )


GateName = Literal["max_norm", "max_coordinate", "max_loss_ratio"]


class GateSpec(Section):
    """`[gates]`: what a round's step must keep to, beyond what the encoding enforces; else it is rejected, or held."""

    max_norm: float = Field(0.0, ge=0, description="largest L2 norm of the step of the global adapter; 0 means any")
    max_coordinate: float = Field(0.0, ge=0, description="largest step of one coordinate; 0 means any")
    max_loss_ratio: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="largest held-out loss of the new adapter over that of the one before, as evaluators report it; 0"
        " asks no evaluator",
    )
    hold: Annotated[tuple[GateName, ...], AfterValidator(distinct)] = Field(
        (),
        description="the gates whose failure holds a round until the operator approves or rejects it; the others reject"
        " it at once",
    )
    evaluation_s: float = Field(
        3600.0, gt=0, le=7 * 86400, description="wait for evaluators; the round is held meanwhile"
    )
    without_report: Literal["hold", "pass"] = Field(
        "hold", description="what becomes of a round if no evaluator has reported in that time"
    )

    @model_validator(mode="after")
    def _only_what_is_set_can_hold(self) -> Self:
        if idle := [name for name in self.hold if not getattr(self, name)]:
            raise ValueError(f"gates.hold names {idle[0]}, which is not set")
        return self
