"""A task: base model, adapter, prompt, training, round policy, encoding. Data, never code.

An operator writes it as TOML (`fedit-server up --task FILE`); the server resolves what it left open (the base's digest,
the adapter's layout) and publishes a TaskDocument, whose digest every round is bound to.
"""

from enum import StrEnum
from math import ceil
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.base_shapes import BaseShapes
from fedit_protocol.collusion import MAX_COHORT, check_hiding
from fedit_protocol.encoding import digest_of, encode
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.layer_rules import check_layers
from fedit_protocol.method_rules import check_method
from fedit_protocol.selection import invited
from fedit_protocol.state_layout import state_layout
from fedit_protocol.task_adapter import AdapterSpec as AdapterSpec  # noqa: PLC0414 - found here too
from fedit_protocol.task_base import BaseModelSpec as BaseModelSpec  # noqa: PLC0414 - found here too
from fedit_protocol.task_base import CanarySpec
from fedit_protocol.task_base import Quantization as Quantization  # noqa: PLC0414 - found here too
from fedit_protocol.task_compression import CompressionSpec, check_compression
from fedit_protocol.task_fairness import FairnessSpec, check_fairness
from fedit_protocol.task_optimizer import OptimizerSpec, check_optimizer
from fedit_protocol.task_prompt import PromptSpec as PromptSpec  # noqa: PLC0414 - found here too
from fedit_protocol.task_prompt import Template as Template  # noqa: PLC0414 - found here too
from fedit_protocol.task_range import usual_range
from fedit_protocol.task_selection import Selection as Selection  # noqa: PLC0414 - found here too
from fedit_protocol.task_selection import SelectionSpec, check_selection
from fedit_protocol.task_tables import EncodingSpec, GateSpec, MethodSpec, PrivacySpec, Section, absent_at
from fedit_protocol.task_training import Batching as Batching  # noqa: PLC0414 - found here too
from fedit_protocol.task_training import Optimizer as Optimizer  # noqa: PLC0414 - found here too
from fedit_protocol.task_training import ProximalForm as ProximalForm  # noqa: PLC0414 - found here too
from fedit_protocol.task_training import Schedule as Schedule  # noqa: PLC0414 - found here too
from fedit_protocol.task_training import TrainingSpec as TrainingSpec  # noqa: PLC0414 - found here too

SLUG = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"


class Mode(StrEnum):
    """From whom an update is hidden: masked, from the server too; trusted, from everybody but the server (ADR 0022)."""

    MASKED = "masked"
    TRUSTED = "trusted"


class CombineRule(StrEnum):
    """How the sums of a round's cohorts become one update (SPEC, section 12)."""

    WEIGHTED = "weighted"
    TRIMMED_MEAN = "trimmed_mean"
    MEDIAN = "median"


class Deadlines(Section):
    """`[round.deadlines]`: seconds that each stage may take at most."""

    gather_s: float = Field(30.0, gt=0, le=86400, description="wait for a full cohort once cohort_min clients are free")
    join_s: float = Field(60.0, gt=0, le=3600, description="advertise_keys: from the offer to the roster")
    shares_s: float = Field(60.0, gt=0, le=3600, description="share_keys: shares, then acknowledgements, each")
    upload_s: float = Field(3600.0, gt=0, le=7 * 86400, description="training and masked_update together")
    confirm_s: float = Field(60.0, gt=0, le=3600, description="confirm: signatures of the survivors, in strict rounds")
    unmask_s: float = Field(120.0, gt=0, le=3600, description="unmask: answers of the survivors")
    second_s: float = Field(120.0, gt=0, le=3600, description="a second sum: its input, then its uploads, each")


LEAST_MASKED: Final = 3
"""Fewest devices of a masked sum: with two each learns the other's update from the result."""

MAX_COHORTS: Final = 256
"""Cohorts of one round."""

ROBUST_COHORTS: Final = 5
"""Fewest cohorts whose trimmed mean or median says anything about outliers (PROTOCOL, section 9.1)."""


def least_for(rule: CombineRule, trim: int) -> int:
    """Return how many cohorts a rule needs at least, to hold what it promises."""
    match rule:
        case CombineRule.WEIGHTED:
            return 1
        case CombineRule.TRIMMED_MEAN:
            return max(ROBUST_COHORTS, 2 * trim + 1)
        case CombineRule.MEDIAN:
            return ROBUST_COHORTS


class RoundSpec(Section):
    """`[round]`: how many rounds, how large, who may drop out."""

    rounds: int = Field(10, ge=1, le=100_000, description="committed rounds after which the task is finished")
    max_failures: int = Field(5, ge=0, le=1000, description="failed rounds in a row after which the task is paused")
    mode: Mode = Field(
        Mode.MASKED,
        description="masked: the server sees sums only; trusted: weaker, it sees every update (servers and devices must"
        " allow it; [encoding] keeps clip_norm and the weights, nothing is rounded)",
    )
    cohort_min: int = Field(
        3, ge=1, le=MAX_COHORT, description="fewest devices in a round; at least 3 where updates are masked"
    )
    cohort_size: int = Field(
        3, ge=1, le=MAX_COHORT, description="devices invited to one cohort; also the size the ring is made for"
    )
    cohorts: int = Field(
        1, ge=1, le=MAX_COHORTS, description="cohorts of a round at most, each a secure sum of its own"
    )
    min_cohorts: int = Field(
        0, ge=0, le=MAX_COHORTS, description="cohorts that must finish; 0 means half of those that were opened"
    )
    combine: CombineRule = Field(
        CombineRule.WEIGHTED, description="from the cohorts' sums to one update: weighted, trimmed_mean or median"
    )
    trim: int = Field(1, ge=1, le=MAX_COHORTS, description="trimmed_mean: cohorts left out at each end, per coordinate")
    selection: Selection = Field(
        Selection.UNIFORM,
        description="uniform (drawn at random), first_come, stratified (by what devices declare of their rows),"
        " resource_aware (1.25 times as many as wanted, of those that expect to be in time), self (devices decide); in"
        " mode trusted also oort and power_of_choice (by the loss of each device's last update)",
    )
    corrupt_fraction: float = Field(0.1, ge=0, lt=0.34, description="gamma: share of a cohort assumed to collude")
    dropout_fraction: float = Field(0.3, ge=0, lt=0.7, description="delta: share that may drop out before upload ends")
    min_survivors: int = Field(0, ge=0, le=MAX_COHORT, description="s_min; 0 means the default rule of SPEC, section 5")
    threshold: int = Field(0, ge=0, le=MAX_COHORT, description="t, the Shamir threshold; 0 means the default rule")
    min_cert_age_h: float = Field(
        0.0, ge=0, le=8760, description="hours since enrolment before a device may take part; 24 in open federations"
    )
    strict: bool = Field(
        False, description="survivors sign the one survivor set before they give shares: one more round trip"
    )
    deadlines: Deadlines = Field(default_factory=Deadlines, description="seconds per stage")

    @model_validator(mode="after")
    def _sizes_are_ordered(self) -> Self:
        if self.cohort_min > self.cohort_size:
            raise ValueError(
                f"cohort_min = {self.cohort_min} exceeds cohort_size = {self.cohort_size}, so that no round could open:"
                f" set cohort_size = {self.cohort_min}"
            )
        if self.min_cohorts > self.cohorts:
            raise ValueError(f"min_cohorts exceeds cohorts: set cohorts = {self.min_cohorts} or more")
        if self.least_cohorts > self.cohorts:
            raise ValueError(
                f"combine = {self.combine} needs {self.least_cohorts} cohorts or more, to know an outlier:"
                f" set cohorts = {self.least_cohorts}, or combine = weighted"
            )
        return self

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.mode is Mode.MASKED and self.cohort_min < LEAST_MASKED:
            raise ValueError(
                f"cohort_min is at least {LEAST_MASKED} where mode = masked: fewer hide nobody;"
                f" set cohort_min = {LEAST_MASKED}"
            )
        if self.mode is Mode.TRUSTED and (self.cohorts > 1 or self.strict or self.threshold):
            raise ValueError("mode = trusted has one cohort and no shares: leave out cohorts, strict and threshold")
        return self

    @model_validator(mode="after")
    def _ring_is_not_too_large(self) -> Self:
        if self.ring_size > MAX_COHORT:
            raise ValueError(
                "with selection = resource_aware cohort_size is at most 102: 1.25 times as many are invited"
            )
        return self

    @property
    def least_cohorts(self) -> int:
        """The fewest cohorts that a round may be opened with."""
        return max(self.min_cohorts, least_for(self.combine, self.trim))

    @property
    def least_clients(self) -> int:
        """How many devices must be free before a round may open."""
        return self.cohort_min * self.least_cohorts

    @property
    def most_clients(self) -> int:
        """How many devices a round invites at most."""
        return self.ring_size * self.cohorts

    @property
    def ring_size(self) -> int:
        """How many devices one cohort has at most: more than are wanted where some are expected to be late."""
        return invited(self.cohort_size) if self.selection is Selection.RESOURCE_AWARE else self.cohort_size

    def cohorts_needed(self, opened: int) -> int:
        """Return how many of the cohorts that were opened must finish, for the round to commit."""
        return max(self.least_cohorts, 0 if self.min_cohorts else ceil(opened / 2))


class Task(Section):
    """A whole task file."""

    id: Annotated[TaskId, Field(pattern=SLUG, description="slug that names the task in commands and URLs")]
    title: str = Field(min_length=1, max_length=200, description="what people see")
    version: int = Field(1, ge=1, description="raised with every change; people agree to ID@VERSION")
    operator: str = Field("", max_length=200, description="who runs this, in words")
    base: BaseModelSpec = Field(description="the frozen model")
    adapter: AdapterSpec = Field(default_factory=AdapterSpec, description="the LoRA adapter")
    prompt: PromptSpec = Field(default_factory=PromptSpec, description="records to tokens")
    training: TrainingSpec = Field(default_factory=TrainingSpec, description="local training")
    round: RoundSpec = Field(default_factory=RoundSpec, description="round policy")
    encoding: EncodingSpec = Field(default_factory=EncodingSpec, description="quantisation of updates")
    method: MethodSpec = Field(default_factory=MethodSpec, description="aggregation")
    privacy: PrivacySpec | None = Field(None, description="differential privacy; without this table there is none")
    canary: CanarySpec | None = Field(
        None, exclude_if=absent_at(None), description="public rows that compare base classes; may be left out"
    )

    fairness: FairnessSpec | None = Field(
        None, exclude_if=absent_at(None), description="losses by domain, and weights that follow them; may be left out"
    )
    compression: CompressionSpec | None = Field(
        None, exclude_if=absent_at(None), description="fewer bits or numbers of an update; may be left out"
    )

    @model_validator(mode="after")
    def _tables_fit(self) -> Self:
        check_fairness(self)
        check_compression(self)
        return self

    @model_validator(mode="after")
    def _canary_compares_hidden_classes(self) -> Self:
        if self.canary and len(self.base.classes) < 2:
            raise ValueError("[canary] compares base classes: list two or more in base.classes")
        if self.canary:
            check_hiding(self.round, self.canary.hidden_among, "canary.hidden_among")
        if self.canary and (self.privacy or self.round.mode is not Mode.MASKED):
            raise ValueError(
                "[canary] needs round.mode = masked and no [privacy]: its losses are neither sealed nor noisy"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        check_method(self)
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> Self:
        if self.privacy and self.encoding.max_weight != 1:
            raise ValueError("with [privacy] every device weighs the same: set encoding.max_weight = 1")
        if self.privacy and self.round.mode is not Mode.MASKED:
            raise ValueError("[privacy] needs round.mode = masked: devices share the noise of one sum")
        return self

    selection: SelectionSpec = Field(
        default_factory=SelectionSpec,
        exclude_if=absent_at(SelectionSpec()),
        description="categories whose coverage is counted, and what `round.selection` needs",
    )

    @model_validator(mode="after")
    def _selection_fits(self) -> Self:
        check_selection(self)
        return self

    optimizer: OptimizerSpec = Field(
        default_factory=OptimizerSpec,
        exclude_if=absent_at(OptimizerSpec()),
        description="from the round's mean change to the adapter's step",
    )

    @model_validator(mode="after")
    def _optimizer_fits(self) -> Self:
        check_optimizer(self)
        return self

    gates: GateSpec = Field(default_factory=GateSpec, description="what a step must keep to")

    @model_validator(mode="after")
    def _range_is_known(self) -> Self:
        if self.round.mode is Mode.MASKED and not self.encoding.value_range and not self.training.most_steps:
            raise ValueError(
                "with training.local_steps = 0 encoding.value_range must be stated, or training.max_steps:"
                " epochs do not give it"
            )
        return self

    @model_validator(mode="after")
    def _noise_has_one_cohort(self) -> Self:
        if self.privacy and self.round.cohorts > 1:
            raise ValueError("[privacy] is defined for round.cohorts = 1 only: noisy sums are not combined yet")
        return self

    @property
    def label(self) -> str:
        """`ID@VERSION`, what consent refers to."""
        return f"{self.id}@{self.version}"

    @property
    def most_weight(self) -> int:
        """The largest integer weight in a sum: where devices decide whether they join, 1 / probability is in it."""
        factor = self.selection.weight_factor if self.round.selection is Selection.SELF else 1
        return self.encoding.max_weight * factor

    @property
    def value_range(self) -> float:
        """r, the public range of one coordinate: what AdamW can move it in one round, with 5 % to spare."""
        return self.encoding.value_range or usual_range(self)


class TaskDocument(Section):
    """What the server publishes: the resolved task and the adapter's layout."""

    task: Task
    layout: AdapterLayout
    lora: AdapterLayout | None = Field(
        None,
        exclude_if=absent_at(None),
        description="the adapter that is built from the layout's numbers; absent where the layout is that adapter",
    )
    linear_parameters: int = Field(ge=0, description="numbers in the base's linear layers, for memory estimates")
    other_parameters: int = Field(ge=0, description="numbers elsewhere in the base (embeddings, norms)")
    hidden_size: int = Field(ge=0, description="width of the residual stream, for memory estimates; 0 if unknown")
    layers: int = Field(ge=0, description="decoder layers, for memory estimates; 0 if unknown")
    intermediate_size: int = Field(
        0, ge=0, exclude_if=absent_at(0), description="width of the feed-forward layers, for estimates; 0 if unknown"
    )
    vocabulary: int = Field(
        0, ge=0, exclude_if=absent_at(0), description="rows of the output layer, for estimates; 0 if unknown"
    )
    base_bytes: int = Field(
        0, ge=0, exclude_if=absent_at(0), description="bytes of the base's pinned files together; 0 if unknown"
    )

    @model_validator(mode="after")
    def _is_resolved(self) -> Self:
        if not self.task.base.digest:
            raise ValueError("a published task names the digest of its base")
        return self

    @model_validator(mode="after")
    def _layout_is_the_methods(self) -> Self:
        state = state_layout(self.task.method, self.built)
        if (self.lora is None) != (state is None) or self.layout != (state or self.built):
            raise ValueError(f"the layout is not what travels with method.name = {self.task.method.name}")
        return self

    @classmethod
    def of(cls, task: Task, shapes: BaseShapes, base_bytes: int) -> Self:
        """Return the document of a task whose base has these shapes.

        Raises ValueError if a target module fits none, ConfigError C023, C041 if a layer is too narrow for its method.
        """
        adapter = AdapterLayout.of_lora(shapes.linear, task.adapter.target_modules, task.adapter.rank)
        check_layers(task, adapter)
        state = state_layout(task.method, adapter)
        return cls(
            task=task,
            layout=state or adapter,
            lora=adapter if state else None,
            linear_parameters=shapes.linear_parameters,
            other_parameters=shapes.other_parameters,
            hidden_size=shapes.hidden_size,
            layers=shapes.layers,
            intermediate_size=shapes.intermediate_size,
            vocabulary=shapes.vocabulary,
            base_bytes=base_bytes,
        )

    @property
    def built(self) -> AdapterLayout:
        """The LoRA adapter that PEFT loads: the layout itself, or what is built from its numbers."""
        return self.lora or self.layout

    @property
    def digest(self) -> Digest:
        """The SHA-256 of the document's canonical bytes."""
        return digest_of(encode(self))
