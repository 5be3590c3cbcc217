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


PUBLISHED = {
    ("alpaca", ""): (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:\n"
    ),
    ("alpaca", "2 and 3"): (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a"
        " response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Input:\n2 and 3\n\n### Response:\n"
    ),
    ("alpaca_short", ""): "### Instruction:\nAdd.\n\n### Response:\n",
    ("alpaca_short", "2 and 3"): "### Instruction:\nAdd.\n\n### Input:\n2 and 3\n\n### Response:\n",
    ("alpaca_legacy", ""): (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:"
    ),
    ("alpaca_legacy", "2 and 3"): (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a"
        " response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Input:\n2 and 3\n\n### Response:"
    ),
    ("vigogne", ""): (
        "Ci-dessous se trouve une instruction qui décrit une tâche. Écrivez une réponse qui complète correctement la"
        " demande.\n\n### Instruction:\nAdd.\n\n### Réponse:\n"
    ),
    ("vigogne", "2 and 3"): (
        "Ci-dessous se trouve une instruction qui décrit une tâche, associée à une entrée qui fournit un contexte"
        " supplémentaire. Écrivez une réponse qui complète correctement la demande."
        "\n\n### Instruction:\nAdd.\n\n### Entrée:\n2 and 3\n\n### Réponse:\n"
    ),
    ("chat", ""): "<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n",
    ("chat", "2 and 3"): "<|im_start|>user\nAdd.\n\n2 and 3<|im_end|>\n<|im_start|>assistant\n",
}
"""Template and context → the whole prompt as it was published; no model knows another wording."""


@pytest.mark.parametrize("on_inputs", [False, True], ids=["answers", "all"])
@pytest.mark.parametrize(("template", "context"), PUBLISHED, ids=str)
def test_text_and_mask_are_those_of_the_published_template(
    template: str, context: str, on_inputs: bool, tokenizer: Any
) -> None:
    example = one(row("Add.", "5", context=context), tokenizer, template=template, train_on_inputs=on_inputs)
    prompt, after = PUBLISHED[template, context], "\n" if template == "chat" else ""
    assert tokenizer.decode(example.ids) == f"{prompt}5<|im_end|>{after}"
    assert trained_text(example, tokenizer) == (f"{prompt}5<|im_end|>{after}" if on_inputs else "5<|im_end|>")


def test_an_answer_right_after_a_colon_keeps_its_first_token(tokenizer: Any) -> None:
    """`alpaca_legacy` ends in a colon, and this tokenizer has a token for a colon and the line break behind it."""
    example = one(row("Say it.", "\nokay"), tokenizer, template="alpaca_legacy")
    assert len(tokenizer(":\n", add_special_tokens=False)["input_ids"]) == 1
    assert trained_text(example, tokenizer) == "\nokay<|im_end|>"


@pytest.mark.parametrize("template", [template for template in Template if template is not Template.CHAT])
def test_built_in_templates_take_no_conversation(template: Template, tokenizer: Any) -> None:
    with pytest.raises(DataError) as refused:
        one(Record(TURNS), tokenizer, template=template)
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
