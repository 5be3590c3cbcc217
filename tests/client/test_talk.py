"""`chat`: each voice with its own memory, side by side where there is room, one after the other where not."""

import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from fedit_client.cli import invoke
from fedit_client.console import Console
from fedit_client.conversations.talk import ChatWishes, Talk
from fedit_client.data import Message
from fedit_protocol.errors import ConfigError
from fedit_protocol.testing import small_task

from ..joined_home import joined_home

BOTH = (("version 2", ""), ("base", "base"))


@dataclass
class Echo:
    """Answers with its name and the last question, in two pieces; `asked` keeps everything."""

    asked: list[tuple[str, list[str], dict[str, Any]]] = field(default_factory=list)

    async def ask(self, messages: Sequence[Message], *, voice: str = "", **wishes: Any) -> AsyncIterator[str]:
        self.asked.append((voice, [f"{message.role}: {message.content}" for message in messages], wishes))
        yield f"{voice or 'adapter'} says"
        yield f" {messages[-1].content}"


def talking(console: Console, **wishes: Any) -> Talk:
    return Talk(console, Echo(), ChatWishes(**wishes), BOTH)


async def test_each_voice_remembers_its_own_answers(capsys: pytest.CaptureFixture[str]) -> None:
    echo = Echo()
    talk = Talk(Console(), echo, ChatWishes(seed=7, temperature=0.5, max_tokens=9), BOTH)
    assert await talk.turn("one") == {"version 2": "adapter says one", "base": "base says one"}
    await talk.turn("two")
    assert echo.asked[2:] == [
        (name, ["user: one", f"assistant: {name or 'adapter'} says one", "user: two"],
         {"temperature": 0.5, "max_tokens": 9, "seed": 7})
        for name in ("", "base")
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "version 2:", "adapter says one", "base:", "base says one",
        "version 2:", "adapter says two", "base:", "base says two",
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "together"), [(120, True), (80, False)])
async def test_a_wide_terminal_has_both_side_by_side(
    width: int, together: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    console, shown = Console(), io.StringIO()
    console.out = RichConsole(file=shown, force_terminal=True, width=width, color_system=None)
    await talking(console).turn("hello")
    written = shown.getvalue() + capsys.readouterr().out
    lines = [line for line in written.splitlines() if "adapter says hello" in line]
    assert any("base says hello" in line for line in lines) is together


def test_programs_and_pipes_get_plain_words() -> None:
    assert not talking(Console(json=True))._beside
    assert not talking(Console())._beside  # no terminal here


@pytest.mark.parametrize(("word", "version"), [(None, None), ("base", None), ("12", 12)])
def test_what_is_compared_with(word: str | None, version: int | None) -> None:
    assert ChatWishes(compare=word).compared_version == version


def test_a_word_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        _ = ChatWishes(compare="newest").compared_version
    assert refused.value.code == "U001"


def test_a_version_that_is_not_here_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensors").write_bytes(b"")
    home = joined_home(tmp_path / "home", small_task(), {3: tmp_path / "tensors"})
    monkeypatch.setenv("FEDIT_HOME", str(home.home))
    for words in (["--version", "5"], ["--compare", "5"]):
        assert invoke(["chat", "--prompt", "hello", "--json", *words]) == 4
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], error["fix"]) == ("FEDIT-J004", "fedit-client adapters pull 5")
