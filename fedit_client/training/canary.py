"""The public canary rows of a task, scored on this device's base class with the adapter that a round starts from."""

from math import isfinite
from typing import Any

from fedit_client.data import Message, Record, Role
from fedit_client.training.batches import batches_of
from fedit_client.training.loss import feeding_of, total_loss
from fedit_client.training.tokenize import tokenize
from fedit_protocol.errors import DataError
from fedit_protocol.metrics import MAX_LOSS
from fedit_protocol.task import Task
from fedit_protocol.task_base import CanaryRow, CanarySpec


def canary_loss(model: Any, tokenizer: Any, pad_id: int, task: Task, spec: CanarySpec) -> float:
    """Return the mean loss per answer token in nats, MAX_LOSS for what is no number; the model stays as it is.

    Raises DataError D070 if the cutoff leaves no answer: the task's fault, and the same on every device.
    """
    prompt = task.prompt.model_copy(
        update={"cutoff_tokens": spec.tokens, "min_cutoff_tokens": 0, "train_on_inputs": False}
    )
    scored = task.model_copy(update={"prompt": prompt})
    try:
        rows = tokenize([_record(row) for row in spec.rows], tokenizer, prompt)
    except DataError as error:
        raise DataError(f"the task's canary rows keep no answer at {spec.tokens} tokens", code="D070",
                        fix="ask the organiser for a larger canary.tokens") from error  # fmt: skip
    feeding = feeding_of(model, scored, pad_id)
    total, tokens = total_loss(model, batches_of(rows.examples, feeding), feeding.positions)
    loss = total / tokens
    return loss if isfinite(loss) else MAX_LOSS


def _record(row: CanaryRow) -> Record:
    """Return a row as Dolly's columns are read."""
    context = row.context.strip()
    question = row.instruction + (f"\n\n{context}" if context else "")
    return Record((Message(Role.USER, question), Message(Role.ASSISTANT, row.response)), context=context)
