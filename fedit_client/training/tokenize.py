"""Records → token ids and a loss mask. The boundary between prompt and answer is exact, token by token.

Prompt and answer are tokenised apart and joined. At generation the prompt is tokenised alone as well, so training sees
the very ids that generation will see; tokenising the joined text could merge the prompt's end with the answer's begin.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_client.data import Message, Record
from fedit_client.training.chat_template import ChatTemplate
from fedit_client.training.prompts import PROMPTS
from fedit_protocol.errors import DataError, TaskRefusedError
from fedit_protocol.task import PromptSpec, Template

Ids = NDArray[np.int64]
Piece = tuple[str, bool]
"""A stretch of text, and whether it is an answer."""


@dataclass(frozen=True)
class Example:
    """One tokenised record: `ids` and `loss_mask` are int64 (T,); mask 1 = this token is trained on."""

    ids: Ids
    loss_mask: Ids
    category: str = ""


@dataclass
class Tokenized:
    """The usable examples, and what the cutoff did: `cut` were too long, `skipped` lost their whole answer to it."""

    examples: list[Example] = field(default_factory=list)
    cut: int = 0
    skipped: int = 0


def tokenize(records: Sequence[Record], tokenizer: Any, spec: PromptSpec) -> Tokenized:
    """Tokenise records by the task's prompt section.

    Raises DataError D012 if no row keeps an answer token, D015 for a conversation under a built-in template, D016 for
    one that the chat template does not take, ModelError M003 without a chat template, TaskRefusedError K005 if the
    template hides where answers begin, K012 if it is beyond bounds.
    """
    result = Tokenized()
    with ChatTemplate(tokenizer) as chat:
        for record in records:
            ids, mask = _joined(record, tokenizer, spec, chat)
            result.cut += len(ids) > spec.cutoff_tokens
            ids, mask = ids[: spec.cutoff_tokens], mask[: spec.cutoff_tokens]
            # The first token has nothing before it to be predicted from.
            if mask[1:].any():
                result.examples.append(Example(ids, mask, record.category))
            else:
                result.skipped += 1
    if records and not result.examples:
        raise DataError(
            f"no row keeps any of its answer within {spec.cutoff_tokens} tokens",
            code="D012",
            fix="give rows with shorter prompts",
        )
    return result


def uncut(records: Iterable[Record], tokenizer: Any, spec: PromptSpec) -> Iterator[Example | DataError]:
    """Yield every record as an Example, however long, or why the template does not take it; else raises alike."""
    with ChatTemplate(tokenizer) as chat:
        for record in records:
            try:
                ids, mask = _joined(record, tokenizer, spec, chat)
            except DataError as error:
                yield error
            else:
                yield Example(ids, mask, record.category)


def prompt_ids(
    messages: Sequence[Message], tokenizer: Any, template: Template, chat: ChatTemplate, context: str = ""
) -> Ids:
    """Return the ids (T,) that an answer to this conversation starts from; raises like `tokenize`."""
    if template is Template.CHAT:
        (text,) = chat.render(messages, [(len(messages), True)])
        return _ids(tokenizer, text)
    return _ids(tokenizer, _written(messages, context, template), begins=True)


def _joined(record: Record, tokenizer: Any, spec: PromptSpec, chat: ChatTemplate) -> tuple[Ids, Ids]:
    ids: list[Ids] = []
    mask: list[Ids] = []
    for text, is_answer in _pieces(record, tokenizer, spec.template, chat):
        begins = not ids and (record.is_text or spec.template is not Template.CHAT)
        piece = _ids(tokenizer, text, begins=begins)
        ids.append(piece)
        mask.append(
            _answer_mask(piece, tokenizer)
            if is_answer and not spec.train_on_inputs
            else np.full_like(piece, is_answer or spec.train_on_inputs)
        )
    return np.concatenate(ids), np.concatenate(mask)


def _pieces(record: Record, tokenizer: Any, template: Template, chat: ChatTemplate) -> Iterator[Piece]:
    """Yield prompt and answer in turn; an answer, or a plain text, ends with the token that ends generation."""
    if record.is_text:
        yield record.messages[0].content + tokenizer.eos_token, True
        return
    if template is Template.CHAT:
        yield from _chat_pieces(record.messages, tokenizer, chat)
        return
    yield _written(record.messages[:-1], record.context, template), False
    yield record.messages[-1].content + tokenizer.eos_token, True


def _chat_pieces(messages: Sequence[Message], tokenizer: Any, chat: ChatTemplate) -> Iterator[Piece]:
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    views = [view for place in answers for view in ((place, True), (place + 1, False))]
    whole, *texts = chat.render(messages, [(len(messages), False), *views])
    done = 0
    for before, after in zip(texts[::2], texts[1::2], strict=True):
        if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
            raise TaskRefusedError(
                "the base's chat template does not show where an answer begins",
                code="K005",
                fix='ask the operator for prompt.template = "alpaca"',
            )
        yield whole[done : len(before)], False
        yield _ended(whole[len(before) : len(after)], tokenizer), True
        done = len(after)


def _ended(answer: str, tokenizer: Any) -> str:
    """Some templates leave the end token to the generator; then it is added, or the model would never stop."""
    return answer if tokenizer.eos_token in answer else answer + tokenizer.eos_token


def _answer_mask(ids: Ids, tokenizer: Any) -> Ids:
    """Train up to the last end token; a line break that a template puts after it is never generated."""
    ends = np.flatnonzero(ids == tokenizer.eos_token_id)
    last = int(ends[-1]) if ends.size else len(ids) - 1
    return (np.arange(len(ids)) <= last).astype(np.int64)


def _written(messages: Sequence[Message], context: str, template: Template) -> str:
    """The prompt of a built-in template."""
    if len(messages) != 1:
        raise DataError(
            f"the template {template} takes one question and one answer, not a conversation",
            code="D015",
            fix="give rows with instruction and response",
        )
    instruction = messages[0].content.removesuffix(f"\n\n{context}") if context else messages[0].content
    return PROMPTS[template].prompt(instruction, context)


def _ids(tokenizer: Any, text: str, *, begins: bool = False) -> Ids:
    """Token ids of a text; a begin token is added only where the tokenizer has one and no template wrote it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = [tokenizer.bos_token_id] if begins and getattr(tokenizer, "add_bos_token", False) else []
    return np.asarray(start + ids, dtype=np.int64)
