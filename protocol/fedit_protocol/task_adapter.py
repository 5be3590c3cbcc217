"""The table `[adapter]` of a task: the LoRA adapter that its devices train."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fedit_protocol.encoding import DigestText
from fedit_protocol.task_tables import Section, absent_at, distinct, ordered


class AdapterSpec(Section):
    """`[adapter]`: the LoRA adapter (Hu et al. 2021)."""

    rank: int = Field(8, ge=1, le=256, description="r, the inner dimension of each pair of factors")
    ranks: Annotated[tuple[int, ...], AfterValidator(ordered)] = Field(
        (),
        max_length=8,
        exclude_if=absent_at(()),
        description="the ranks that devices of one cohort may have, rank being the largest (method nested, and ravan"
        " for whole heads): each takes the one that fits; empty: rank alone",
    )
    rank_hidden_among: int = Field(
        3,
        ge=2,
        le=128,
        exclude_if=absent_at(3),
        description="fewest honest devices that must have a rank before slices that only they have are summed",
    )
    alpha: float = Field(16.0, gt=0, le=1024, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the adapter's input during training")
    target_modules: Annotated[tuple[str, ...], AfterValidator(distinct)] = Field(
        ("q_proj", "v_proj"), min_length=1, max_length=32, description="the linear layers that get an adapter, by name"
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="public seed of the first global adapter's A factors; B starts at 0"
    )
    start: DigestText | Literal[""] = Field(
        "",
        exclude_if=absent_at(""),
        description="digest of the adapter that version 0 is, where a task goes on from one (`task create --start`); "
        "empty: it is drawn from the seed",
    )

    @model_validator(mode="after")
    def _ranks_end_at_rank(self) -> Self:
        if self.ranks and (len(self.ranks) < 2 or self.ranks[-1] != self.rank or self.ranks[0] < 1):
            fitting = [*(rank for rank in self.ranks if 0 < rank < self.rank), self.rank]
            near = f"set ranks = {fitting}" if len(fitting) > 1 else f"set rank = {max(self.ranks)}, or more ranks"
            raise ValueError(f"ranks lists at least 2 ranks, of which rank = {self.rank} is the largest: {near}")
        return self
