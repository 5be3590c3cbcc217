"""Loss per category in this process; torch room."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedit_client.data import Record
from fedit_client.evaluation.losses import CategoryLosses
from fedit_client.training.batches import batches_of
from fedit_client.training.local import Loaded
from fedit_client.training.loss import feeding_of, total_loss
from fedit_client.training.side import worn
from fedit_client.training.tokenize import Example, tokenize
from fedit_protocol.task import TaskDocument


def losses_of(
    loaded: Loaded,
    document: TaskDocument,
    adapter: Path | None,
    records: Sequence[Record],
    on_row: Callable[[int, int], None],
) -> CategoryLosses:
    """Return the losses of one adapter (None: the base alone) on these records; raises DataError, ModelError."""
    with worn(loaded.model, document, adapter):
        return _losses_of(loaded, document, records, on_row, base_alone=adapter is None)


def _losses_of(
    loaded: Loaded,
    document: TaskDocument,
    records: Sequence[Record],
    on_row: Callable[[int, int], None],
    *,
    base_alone: bool,
) -> CategoryLosses:
    tokenized = tokenize(records, loaded.tokenizer, document.task.prompt)
    groups: dict[str, list[Example]] = {}
    for example in tokenized.examples:
        groups.setdefault(example.category, []).append(example)
    sums, done = {}, 0
    for category, examples in sorted(groups.items()):
        sums[category] = _total(loaded, document, examples, base_alone)
        done += len(examples)
        on_row(done, len(tokenized.examples))
    means = {category: total / tokens for category, (total, tokens) in sums.items()}
    return CategoryLosses(means, {category: tokens for category, (_, tokens) in sums.items()}, tokenized.skipped)


def _total(loaded: Loaded, document: TaskDocument, examples: Sequence[Example], base_alone: bool) -> tuple[float, int]:
    model: Any = loaded.model
    batches = batches_of(examples, feeding_of(model, document.task, loaded.pad_id))
    if not base_alone:
        return total_loss(model, batches)
    with model.disable_adapter():
        return total_loss(model, batches)
