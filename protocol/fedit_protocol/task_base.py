"""The tables `[base]` and `[canary]` of a task (TASK.md): the frozen model, its classes, and rows that compare them."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fedit_protocol.encoding import AsTuple, DigestText
from fedit_protocol.task_tables import Section, absent_at

MAX_CANARY_ROWS: Final = 16
MAX_CANARY_BYTES: Final = 16 * 1024
"""Of all canary rows together, as UTF-8: they travel inside the task document."""


class Quantization(StrEnum):
    """A base class: how a client holds the frozen base in memory."""

    NF4 = "nf4"
    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"


FALLBACK: Final = (Quantization.NF4, Quantization.BF16, Quantization.INT8)
"""The classes that may meet in one cohort, in the order in which a device tries them."""


def in_fallback_order(classes: tuple[Quantization, ...]) -> tuple[Quantization, ...]:
    """Return classes in the order of FALLBACK; raises ValueError if there is none, one twice, or one of no order."""
    if not classes:
        raise ValueError("the list is empty: leave it out, or name at least one base class")
    if len(set(classes)) != len(classes):
        raise ValueError("the same base class stands there twice")
    if strange := [name for name in classes if name not in FALLBACK]:
        raise ValueError(f"{strange[0]} cannot meet other classes: choose from {', '.join(FALLBACK)}")
    return tuple(sorted(classes, key=FALLBACK.index))


class BaseModelSpec(Section):
    """`[base]`: the frozen model."""

    model: str = Field(
        min_length=1, max_length=512, description="hub id (`org/name`) or a folder with safetensors files"
    )
    revision: str = Field("", max_length=128, description="hub revision; empty means the default branch")
    digest: DigestText | Literal[""] = Field(
        "", description="digest of the weight and tokenizer files; empty in a file means: take what the server sees"
    )
    quantization: Quantization = Field(
        Quantization.NF4, description="nf4, int8, bf16 or fp32, if all devices hold the base alike"
    )
    classes: Annotated[tuple[Quantization, ...], AsTuple, AfterValidator(in_fallback_order)] = Field(
        (),
        exclude_if=absent_at(()),
        description="instead of quantization: the base classes that may meet in a round, out of nf4, bf16 and int8; a"
        " device takes the first of them, in this order, that it can run",
    )

    @model_validator(mode="before")
    @classmethod
    def _first_class_stands_for_all(cls, values: Any) -> Any:
        """Fill in `quantization`, which a file leaves out where it lists classes."""
        classes = values.get("classes") if isinstance(values, dict) else None
        if not isinstance(classes, list | tuple) or "quantization" in values:
            return values
        first = next((name for name in FALLBACK if name in classes), None)
        return values if first is None else {**values, "quantization": first}

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.classes and self.quantization is not self.classes[0]:
            raise ValueError("leave quantization out where classes lists the base classes")
        return self

    @property
    def allowed(self) -> tuple[Quantization, ...]:
        """The base classes that a device may use, in the order in which it tries them."""
        return self.classes or (self.quantization,)


class CanaryRow(Section):
    """`[[canary.rows]]`: one public row, in the columns of Dolly."""

    instruction: str = Field(min_length=1, max_length=4096, description="what is asked")
    context: str = Field("", max_length=8192, description="what it is asked about")
    response: str = Field(min_length=1, max_length=4096, description="the answer whose loss is measured")


class CanarySpec(Section):
    """`[canary]`, optional: public rows on which each base class is scored, so that a class that drifts shows."""

    rows: Annotated[tuple[CanaryRow, ...], AsTuple] = Field(
        min_length=1,
        max_length=MAX_CANARY_ROWS,
        description="tables `[[canary.rows]]` of `instruction`, `context` (may be left out) and `response`; everybody"
        " can read them",
    )
    tokens: int = Field(256, ge=16, le=1024, description="tokens of a row that are scored at most")
    hidden_among: int = Field(
        2,
        ge=2,
        le=128,
        description="fewest honest devices of one class behind the class's loss; with fewer it is not sent",
    )
    max_drift: float = Field(
        0.1,
        gt=0,
        le=30,
        description="the server warns if the losses of two classes are further apart, in nats per token",
    )

    @model_validator(mode="after")
    def _rows_are_few_and_short(self) -> Self:
        size = sum(len((row.instruction + row.context + row.response).encode()) for row in self.rows)
        if size > MAX_CANARY_BYTES:
            raise ValueError(f"the canary rows have {size} bytes; {MAX_CANARY_BYTES} are the most")
        return self
