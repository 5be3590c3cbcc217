"""A request's rows on their way into training: parted, and in tokens. It needs no model, so it can be done ahead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedit_client.data import Record
from fedit_client.data.holding_out import split
from fedit_client.training.request import TrainingRequest
from fedit_client.training.tokenize import Tokenized, tokenize
from fedit_protocol.errors import DataError
from fedit_protocol.task import PromptSpec

_HELD_OUT_ROWS: Final = 32
"""Most held-out rows that are looked at before and after training: beyond that the looking outlasts the training."""


@dataclass(frozen=True)
class Rows:
    """Rows in tokens: those to train on, and those kept back, which are only looked at."""

    to_train: Tokenized
    kept_back: Tokenized

    @property
    def cut(self) -> int:
        """Rows that were longer than the cutoff."""
        return self.to_train.cut + self.kept_back.cut

    @property
    def skipped(self) -> int:
        """Rows that lost their whole answer to the cutoff."""
        return self.to_train.skipped + self.kept_back.skipped


def rows_of(request: TrainingRequest, tokenizer: Any, *, looks: bool = True) -> Rows:
    """Part a request's rows by its split seed, and tokenise them as its plan and task say; raises as `tokenize`.

    Without `looks` the rows that are kept back are not turned into tokens.
    """
    task = request.plan.applied(request.document.task)
    to_train, kept_back = split(request.records, task.training.held_out_fraction, request.split_seed)
    rows = tokenize(to_train, tokenizer, task.prompt)
    return Rows(rows, _looked_at(kept_back[:_HELD_OUT_ROWS], tokenizer, task.prompt) if looks else Tokenized())


def _looked_at(records: Sequence[Record], tokenizer: Any, spec: PromptSpec) -> Tokenized:
    """If the cutoff leaves none of their answers, there is no figure and no error."""
    try:
        return tokenize(records, tokenizer, spec)
    except DataError:
        return Tokenized(skipped=len(records), cut=len(records))
