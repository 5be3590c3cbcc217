"""A chat template as plain stretches of text around the turns, learned by rendering it: for programs without Jinja."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from fedit_client.data import Message, Role
from fedit_client.export.merging import Base
from fedit_client.export.tokens import Tokens, end_piece
from fedit_client.training.chat_template import ChatTemplate
from fedit_client.training.prompts import PROMPTS
from fedit_protocol.errors import DataError, ModelError
from fedit_protocol.task import Template

_SYSTEM, _FIRST, _ANSWER, _SECOND = "SYSTEMTEXT", "FIRSTQUESTION", "FIRSTANSWER", "SECONDQUESTION"
_SPECIAL: Final = ("bos", "eos", "unk", "pad")


@dataclass(frozen=True)
class Turns:
    """What stands before, between and after the turns of a conversation."""

    head: str
    """Before the first question where no system message is given."""
    system: tuple[str, str] | None
    """Around a system message; None if the template takes none."""
    question: tuple[str, str]
    """Around a question; the second part opens the answer."""
    answer_end: str

    @property
    def default_system(self) -> str:
        """The system message that the template puts in by itself."""
        if self.system and self.head.startswith(self.system[0]) and self.head.endswith(self.system[1]):
            return self.head.removeprefix(self.system[0]).removesuffix(self.system[1])
        return ""

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as text, the next answer opened."""
        parts = []
        if not messages or messages[0].role is not Role.SYSTEM:
            parts.append(self.head)
        for message in messages:
            match message.role:
                case Role.SYSTEM:
                    opening, end = self.system or ("", "")
                    parts.append(f"{opening}{message.content}{end}")
                case Role.USER:
                    parts.append(f"{self.question[0]}{message.content}{self.question[1]}")
                case Role.ASSISTANT:
                    parts.append(f"{message.content}{self.answer_end}")
        return "".join(parts)

    def as_jinja(self) -> str:
        """Return a chat template that says the same, for a base whose own one the adapter was not trained with."""
        before, after, end = (json.dumps(part, ensure_ascii=False) for part in (*self.question, self.answer_end))
        return (
            f"{{% for message in messages %}}{{% if message['role'] == 'user' %}}"
            f"{{{{ {before} + message['content'] + {after} }}}}"
            f"{{% elif message['role'] == 'assistant' %}}{{{{ message['content'] + {end} }}}}{{% endif %}}"
            "{% endfor %}"
        )

    @classmethod
    def of_prompt(cls, template: Template, end: str) -> Self:
        """Return the turns of a built-in prompt template, in which every question stands for itself."""
        prompt = PROMPTS[template]
        before, after = prompt.prompt(_FIRST).split(_FIRST)
        return cls("", None, (before, after), end)


def turns_of(base: Base, tokens: Tokens, template: Template) -> Turns:
    """Return the turns that a model trained with this template expects.

    Raises ModelError M013 if the base's chat template is more than text around turns, or if there is none.
    """
    if template is not Template.CHAT:
        return Turns.of_prompt(template, end_piece(base))
    if not tokens.template:
        raise _beyond(base, "the base has no chat template")
    with ChatTemplate(_Template(tokens)) as chat:
        turns = _learned(chat, base)
        for messages in _PROBES if turns.system else _PROBES[1:]:
            if turns.render(messages) != chat.render(messages, [(len(messages), True)])[0]:
                raise _beyond(base, "the base's chat template is more than text around turns")
    return turns


def _message(role: Role, text: str) -> Message:
    return Message(role, text)


_USER, _USER2 = _message(Role.USER, _FIRST), _message(Role.USER, _SECOND)
_TOLD, _ASSISTANT = _message(Role.SYSTEM, _SYSTEM), _message(Role.ASSISTANT, _ANSWER)
_PROBES: Final = ((_TOLD, _USER, _ASSISTANT, _USER2), (_USER,), (_USER, _ASSISTANT, _USER2))


def _learned(chat: ChatTemplate, base: Base) -> Turns:
    (opened,) = chat.render([_USER], [(1, True)])
    (closed,) = chat.render([_USER, _ASSISTANT], [(2, False)])
    (again,) = chat.render([_USER, _ASSISTANT, _USER2], [(3, True)])
    try:
        before, after = opened.split(_FIRST)
        answer_end = closed.split(_ANSWER)[1]
        question = _between(again, _ANSWER, _SECOND).removeprefix(answer_end)
        if not before.endswith(question):
            raise ValueError
        head = before.removesuffix(question)
        return Turns(head, _system(chat, question), (question, after), answer_end)
    except (ValueError, IndexError) as error:
        raise _beyond(base, "the base's chat template is more than text around turns") from error


def _system(chat: ChatTemplate, question: str) -> tuple[str, str] | None:
    try:
        (told,) = chat.render([_TOLD, _USER], [(2, True)])
    except DataError:
        return None
    opening, rest = told.split(_SYSTEM)
    between = rest.split(_FIRST)[0]
    # Some templates put the system's words into the first question: then there is no end of their own.
    return (opening, between.removesuffix(question)) if between.endswith(question) else None


def _between(text: str, first: str, second: str) -> str:
    return text.split(first, 1)[1].split(second, 1)[0]


def _beyond(base: Base, what: str) -> ModelError:
    return ModelError(f"{what}, which a Modelfile cannot say", code="M013", where=str(base.folder),
                      fix="fedit-client export --to gguf")  # fmt: skip


class _Template:
    """What a renderer asks of a tokenizer."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        places = dict(tokens.special)
        self.special_tokens_map: dict[str, Any] = {
            f"{name}_token": tokens.pieces[places[name]] for name in _SPECIAL if name in places
        }

    def get_chat_template(self) -> str:
        """The text of the template."""
        return self._tokens.template
