"""The boundary between what is asked and what is learned, token by token."""

from typing import Any

import pytest

from fedit_client.data import Message, Record, Role, Shape, records_from
from fedit_client.training.chat_template import ChatTemplate
from fedit_client.training.tokenize import Example, Ids, prompt_ids, tokenize
from fedit_protocol.errors import DataError, ModelError, TaskRefusedError
from fedit_protocol.task import PromptSpec, Template

TURNS = (
    Message(Role.SYSTEM, "Be brief."),
    Message(Role.USER, "One?"),
    Message(Role.ASSISTANT, "Two."),
    Message(Role.USER, "Three?"),
    Message(Role.ASSISTANT, "Four."),
)


def one(record: Record, tokenizer: Any, **prompt: Any) -> Example:
    (example,) = tokenize([record], tokenizer, PromptSpec.model_validate(prompt)).examples
    return example


def prompt_of(record: Record, tokenizer: Any, template: Template) -> Ids:
    with ChatTemplate(tokenizer) as chat:
        return prompt_ids(record.messages[:1], tokenizer, template, chat)


def trained_text(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode(example.ids[example.loss_mask == 1]))


def row(instruction: str, response: str, context: str = "") -> Record:
    return records_from([{"instruction": instruction, "context": context, "response": response}]).records[0]


def test_the_answer_and_its_end_are_trained_and_nothing_else(tokenizer: Any) -> None:
    example = one(row("Say it.", "okay"), tokenizer)
    assert trained_text(example, tokenizer) == "okay<|im_end|>"


def test_every_assistant_turn_is_trained(tokenizer: Any) -> None:
    assert trained_text(one(Record(TURNS), tokenizer), tokenizer) == "Two.<|im_end|>Four.<|im_end|>"


@pytest.mark.parametrize("template", list(Template))
def test_plain_text_is_trained_from_end_to_end_under_no_template(template: Template, tokenizer: Any) -> None:
    (text,) = records_from([{"text": "One. Two."}], shape=Shape.TEXT).records
    example = one(text, tokenizer, template=template)
    assert tokenizer.decode(example.ids) == "One. Two.<|im_end|>"
    assert example.loss_mask.all()


def test_all_tokens_are_trained_when_the_task_says_so(tokenizer: Any) -> None:
    example = one(row("Say it.", "okay"), tokenizer, train_on_inputs=True)
    assert example.loss_mask.all()


@pytest.mark.parametrize("template", list(Template))
def test_ids_before_the_answer_are_those_that_generation_starts_from(template: Template, tokenizer: Any) -> None:
    record = row("Say it.", "okay")
    example, prompt = one(record, tokenizer, template=template), prompt_of(record, tokenizer, template)
    assert example.ids[: len(prompt)].tolist() == prompt.tolist()
    answer = example.loss_mask[len(prompt) :].tolist()
    assert not example.loss_mask[: len(prompt)].any()
    # The chat template's line break after the end token is in the text and not in the loss.
    assert answer == [1] * 4 + ([0] if template is Template.CHAT else [])


def test_an_end_token_ends_every_answer(tokenizer: Any) -> None:
    example = one(row("Say it.", "okay"), tokenizer)
    assert example.ids[example.loss_mask == 1][-1] == tokenizer.eos_token_id


def test_an_answer_that_would_merge_with_the_prompt_keeps_its_first_token(tokenizer: Any) -> None:
    """The Alpaca prompt ends in a line break, the answer begins with one, and this tokenizer has a token for both."""
    example = one(row("Say it.", "\nokay"), tokenizer, template="alpaca_short")
    merged = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    assert len(merged) == 1
    assert trained_text(example, tokenizer) == "\nokay<|im_end|>"


def test_a_context_is_shown_apart_by_the_alpaca_template(tokenizer: Any) -> None:
    example = one(row("Add.", "5", context="2 and 3"), tokenizer, template="alpaca")
    text = tokenizer.decode(example.ids)
    assert "paired with an input" in text
    assert "### Instruction:\nAdd.\n\n### Input:\n2 and 3\n\n### Response:\n5<|im_end|>" in text


def test_the_short_template_has_no_opening_sentence(tokenizer: Any) -> None:
    text = tokenizer.decode(one(row("Add.", "5"), tokenizer, template="alpaca_short").ids)
    assert text == "### Instruction:\nAdd.\n\n### Response:\n5<|im_end|>"


def test_alpaca_takes_no_conversation(tokenizer: Any) -> None:
    with pytest.raises(DataError) as refused:
        one(Record(TURNS), tokenizer, template="alpaca")
    assert refused.value.code == "D015"


def test_cut_rows_are_counted_and_rows_without_an_answer_left_out_aloud(tokenizer: Any) -> None:
    rows = [row("Say it.", "ok"), row("Say it.", "ok" * 90), row("Say it. " * 30, "ok")]
    found = tokenize(rows, tokenizer, PromptSpec(cutoff_tokens=64))
    assert (len(found.examples), found.cut, found.skipped) == (2, 2, 1)
    assert max(len(example.ids) for example in found.examples) == 64


def test_nothing_left_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError) as refused:
        tokenize([row("Say it. " * 30, "ok")], tokenizer, PromptSpec(cutoff_tokens=64))
    assert refused.value.code == "D012"


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = "{% for message in messages | reverse %}{{ message['content'] }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", backwards)
    with pytest.raises(TaskRefusedError) as refused:
        one(Record(TURNS), tokenizer)
    assert refused.value.code == "K005"


def test_a_template_that_leaves_out_the_end_gets_one(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", bare)
    assert trained_text(one(row("Say it.", "okay"), tokenizer), tokenizer) == "okay\n<|im_end|>"


def test_a_missing_template_is_an_error(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(ModelError) as refused:
        one(row("Say it.", "okay"), tokenizer)
    assert refused.value.code == "M003"
