"""Loss and right tokens of every single row in this process; torch room."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy

from fedit_client.data import Record
from fedit_client.data.holding_out import split
from fedit_client.training.batches import Batch, collate
from fedit_client.training.local import Loaded
from fedit_client.training.loss import inputs
from fedit_client.training.side import worn
from fedit_client.training.tokenize import Example, tokenize, uncut
from fedit_client.training.traits import backbone_of, head_of, traits_of
from fedit_protocol.task import PromptSpec, TaskDocument

_ROWS: Final = 8
_TOKENS_AT_ONCE: Final = 128
"""Of which logits are in memory together."""

OnRow = Callable[[int, int], None]


@dataclass(frozen=True)
class Chosen:
    """The rows to measure, those of a like length side by side; `places` says which of the records each is.

    `left_out` rows lost their whole answer to the cutoff, or were more than were asked for.
    """

    examples: list[Example]
    places: list[int]
    left_out: int


def chosen_rows(
    records: Sequence[Record], tokenizer: Any, prompt: PromptSpec, fraction: float, seed: bytes, most: int
) -> Chosen:
    """Return the rows to measure; with a `fraction` those held out under this seed. Raises DataError."""
    held_out = split(records, fraction, seed)[1] if fraction else list(records)
    wanted = held_out[:most]
    found = tokenize(wanted, tokenizer, prompt).examples
    kept = range(len(wanted)) if len(found) == len(wanted) else _kept(wanted, tokenizer, prompt)
    order = sorted(zip(kept, found, strict=True), key=lambda pair: len(pair[1].ids))  # little is wasted on padding
    return Chosen([example for _, example in order], [place for place, _ in order], len(held_out) - len(found))


def _kept(records: Sequence[Record], tokenizer: Any, prompt: PromptSpec) -> list[int]:
    """Return which records keep some of their answer."""
    places = []
    for place, example in enumerate(uncut(records, tokenizer, prompt)):
        if isinstance(example, Example) and example.loss_mask[1 : prompt.cutoff_tokens].any():
            places.append(place)
    return places


def figures_of(
    loaded: Loaded, document: TaskDocument, adapter: Path | None, examples: Sequence[Example], on_row: OnRow
) -> tuple[list[float], list[int]]:
    """Return each row's summed loss and right tokens under one adapter (None: the base alone); raises ModelError."""
    model: Any = loaded.model
    with worn(model, document, adapter), model.disable_adapter() if adapter is None else nullcontext():
        return row_figures(loaded, examples, on_row)


@torch.no_grad()
def row_figures(loaded: Loaded, examples: Sequence[Example], on_row: OnRow) -> tuple[list[float], list[int]]:
    """Return each row's summed loss and right tokens under the model as it stands."""
    model: Any = loaded.model
    losses, right = [0.0] * len(examples), [0] * len(examples)
    model.eval()
    for start in range(0, len(examples), _ROWS):
        batch = collate(examples[start : start + _ROWS], loaded.pad_id, str(model.device))
        for place, loss, hit in zip(*_tokens(model, batch), strict=True):
            losses[start + place] += loss
            right[start + place] += hit
        on_row(min(start + _ROWS, len(examples)), len(examples))
    return losses, right


def trained_tokens(examples: Sequence[Example]) -> list[int]:
    """Return how many tokens the loss of each row is over."""
    return [int(example.loss_mask[1:].sum()) for example in examples]


def _tokens(model: Any, batch: Batch) -> tuple[list[int], list[float], list[int]]:
    """Return, for every trained token of a padded batch, its row, its loss, and whether it is the likeliest."""
    rows = batch.chosen // batch.ids.shape[1]
    if traits_of(model).plain_head:
        hidden = backbone_of(model)(**inputs(model, batch), use_cache=False).last_hidden_state
        parts = (head_of(model)(part) for part in hidden.flatten(0, 1)[batch.chosen].split(_TOKENS_AT_ONCE))
    else:
        logits = model(**inputs(model, batch), use_cache=False).logits
        parts = iter(logits.flatten(0, 1)[batch.chosen].split(_TOKENS_AT_ONCE))
    losses: list[float] = []
    hits: list[int] = []
    for logits, wanted in zip(parts, batch.targets.split(_TOKENS_AT_ONCE), strict=True):
        losses += cross_entropy(logits.float(), wanted, reduction="none").tolist()
        hits += (logits.argmax(dim=-1) == wanted).int().tolist()
    return rows.tolist(), losses, hits
