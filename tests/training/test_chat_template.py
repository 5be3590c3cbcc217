"""A base model's chat template is somebody else's program: what it may do, how long, and how much."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedit_client.base.model import digest_folder
from fedit_client.data import Message, Role
from fedit_client.training.chat_template import ChatTemplate
from fedit_client.training.tokenize import tokenize
from fedit_client.training.tokenizer import load_tokenizer
from fedit_protocol.errors import DataError, FeditError, ModelError, TaskRefusedError
from fedit_protocol.task import PromptSpec

from ..tiny_llama import CHAT_TEMPLATE, make_tiny_llama
from .rows import letters

TURNS = (Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "One?"), Message(Role.ASSISTANT, "Two."))
ENDLESS = (
    "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}"
)
"""A loop without a call, which no hook of the sandbox sees."""


class Borrowed:
    """The part of a tokenizer that templates use."""

    def __init__(self, template: str | None) -> None:
        self.special_tokens_map = {"eos_token": "<end>"}
        self.template = template

    def get_chat_template(self) -> str:
        """Return the template, or raise as transformers does."""
        if self.template is None:
            raise ValueError("tokenizer.chat_template is not set")
        return self.template


def texts(template: str | None, patience_s: float = 10.0) -> list[str]:
    with ChatTemplate(Borrowed(template), patience_s) as chat:
        return chat.render(TURNS, [(3, False), (2, True)])


def refused(template: str, patience_s: float = 10.0) -> str:
    with pytest.raises(TaskRefusedError) as told:
        texts(template, patience_s)
    assert told.value.code == "K012"
    assert "alpaca" in (told.value.fix or "")
    return str(told.value)


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of this module's own, to be changed."""
    return make_tiny_llama(tmp_path_factory.mktemp("other"))


@pytest.fixture
def template_file(other_base: Path) -> Iterator[Path]:
    file = other_base / "chat_template.jinja"
    before = file.read_bytes()
    yield file
    file.write_bytes(before)


def test_a_template_is_rendered_as_transformers_renders_it(tokenizer: Any) -> None:
    turns = [{"role": message.role.value, "content": message.content} for message in TURNS]
    with ChatTemplate(tokenizer) as chat:
        found = chat.render(TURNS, [(3, False), (2, True), (1, False)])
    assert found == [
        tokenizer.apply_chat_template(turns[:count], tokenize=False, add_generation_prompt=is_open)
        for count, is_open in [(3, False), (2, True), (1, False)]
    ]


def test_a_template_sees_messages_special_tokens_and_what_transformers_adds() -> None:
    template = (
        "{{ eos_token }} {{ messages | length }} {{ add_generation_prompt }} {{ {'é': 1} | tojson }}"
        "{% for message in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ message.role }}{% endfor %}"
    )
    assert texts(template) == ['<end> 3 False {"é": 1}system', '<end> 2 True {"é": 1}system']


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__ }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set ns = namespace(__class__=1) %}{{ ns }}",
        "{{ messages.append(1) }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}{{ os }}",
    ],
)
def test_row_08_a_template_reaches_nothing_but_its_inputs(template: str) -> None:
    assert refused(template)


def test_an_endless_loop_ends_in_an_error_within_the_time_given() -> None:
    assert "takes too long" in refused(ENDLESS, patience_s=0.5)


@pytest.mark.parametrize("template", ["{{ 10 ** (10 ** 8) }}", "{% set x = 9 ** 99999999 %}"])
def test_a_step_that_never_returns_to_the_interpreter_is_ended_too(template: str) -> None:
    assert "takes too long" in refused(template, patience_s=0.5)


def test_a_process_without_a_parent_ends_by_its_own_deadline() -> None:
    """A killed worker can end nobody: the request itself says for how long."""
    lines = (
        {"template": ENDLESS, "special": {}},
        {"turns": [{"role": "user", "content": "x"}], "views": [[1, False]], "most": 10, "limit_s": 0.5},
    )
    program = [sys.executable, "-P", "-m", "fedit_client.training.render"]
    ended = subprocess.run(
        program, input="".join(json.dumps(line) + "\n" for line in lines), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout.splitlines()) == (1, ['{"ready": true}'])


def test_a_template_that_is_slow_with_every_row_is_stopped_after_a_few() -> None:
    slow = "{% set r = range(3000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}"

    def render_many() -> None:
        with ChatTemplate(Borrowed(slow), patience_s=1.0) as chat:
            for _ in range(1000):
                chat.render(TURNS, [(3, False)])

    with pytest.raises(TaskRefusedError, match="too long"):
        render_many()


def test_an_output_out_of_proportion_is_refused() -> None:
    assert "characters" in refused("{% for a in range(1000) %}{{ 'x' * 1000 }}{% endfor %}")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_an_output_that_does_not_fit_into_memory_is_refused_and_the_machine_lives() -> None:
    assert "Memory" in refused("{{ ('x' * 700000000) | length }}")


def test_a_template_of_absurd_length_is_not_even_read() -> None:
    assert "limit" in refused("x" * 300_000)


@pytest.mark.parametrize("template", ["{% for %}", "{{ nothing.at.all }}", "{{ 1 / 0 }}", "{{ range(10 ** 9) }}"])
def test_a_template_that_breaks_is_refused_with_its_reason(template: str) -> None:
    assert "Error" in refused(template)


def test_a_template_that_does_not_take_a_conversation_says_so_about_the_row() -> None:
    with pytest.raises(DataError, match="no system messages") as told:
        texts("{{ raise_exception('no system messages') }}")
    assert told.value.code == "D016"


def test_without_a_template_the_base_is_the_reason() -> None:
    with pytest.raises(ModelError) as told:
        texts(None)
    assert told.value.code == "M003"


def test_what_a_template_says_of_itself_steers_no_terminal() -> None:
    with pytest.raises(FeditError) as told:
        texts(r"{{ raise_exception('\x1b[2Jgone') }}")
    assert "\x1b" not in str(told.value)


def test_a_hostile_template_of_a_base_ends_the_training_of_its_rows_only(template_file: Path, other_base: Path) -> None:
    template_file.write_text("{{ messages.__class__.__base__ }}")
    with pytest.raises(TaskRefusedError) as told:
        tokenize(letters(2), load_tokenizer(other_base), PromptSpec())
    assert told.value.code == "K012"


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_that_differs_by_one_character_belongs_to_another_base(
    place: str, template_file: Path, other_base: Path
) -> None:
    """The tokenizer's template is pinned by the digest of the base, wherever in the folder it lies."""
    config_file = other_base / "tokenizer_config.json"
    before = config_file.read_bytes()
    try:
        digests = []
        for template in (CHAT_TEMPLATE, CHAT_TEMPLATE.replace("assistant", "assistent")):
            if place == "tokenizer_config.json":
                template_file.unlink(missing_ok=True)
                config_file.write_text(json.dumps({**json.loads(before), "chat_template": template}))
            else:
                template_file.write_text(template)
            assert load_tokenizer(other_base).get_chat_template() == template
            digests.append(digest_folder(other_base))
        assert digests[0] != digests[1]
    finally:
        config_file.write_bytes(before)
