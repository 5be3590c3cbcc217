"""The table `[prompt]` of a task: from a record to token ids and a loss mask (TASK.md)."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from fedit_protocol.task_tables import Section, absent_at


class Template(StrEnum):
    """How a record becomes text. `chat` is the base tokenizer's own chat template."""

    CHAT = "chat"
    ALPACA = "alpaca"
    ALPACA_SHORT = "alpaca_short"
    ALPACA_LEGACY = "alpaca_legacy"
    VIGOGNE = "vigogne"


class PromptSpec(Section):
    """`[prompt]`: from a record to token ids and a loss mask."""

    template: Template = Field(
        Template.CHAT,
        description="chat (the pinned tokenizer's own), alpaca, alpaca_short (no opening sentence), alpaca_legacy (no"
        " line break before the answer) or vigogne (French); never a text",
    )
    train_on_inputs: bool = Field(
        False, description="true: the loss covers the prompt too; false: response tokens only"
    )
    cutoff_tokens: int = Field(512, ge=16, le=32768, description="longer rows are cut at this many tokens, and counted")
    min_cutoff_tokens: int = Field(
        0,
        ge=0,
        le=32768,
        exclude_if=absent_at(0),
        description="a device short of memory may cut at as few tokens as this; 0 means no fewer than cutoff_tokens",
    )

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.min_cutoff_tokens > self.cutoff_tokens:
            raise ValueError("min_cutoff_tokens exceeds cutoff_tokens")
        return self

    @property
    def least_tokens(self) -> int:
        """The fewest tokens that a device may cut rows at."""
        return self.min_cutoff_tokens or self.cutoff_tokens
