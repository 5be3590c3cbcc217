"""Losses by category and answers, through the evaluation process."""

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fedit_client.data import Message, Role
from fedit_client.data.holding_out import split
from fedit_client.evaluation import (
    CategoryLosses,
    EvaluationRequest,
    MeasureRequest,
    WorkerChat,
    WorkerEvaluator,
    WorkerMeasurer,
)
from fedit_client.evaluation.loss import losses_of
from fedit_client.evaluation.rows import chosen_rows, figures_of, row_figures
from fedit_client.evaluation.worker import _attached, speaking
from fedit_client.training import TrainingRequest
from fedit_client.training.local import Loaded, load, train_here
from fedit_client.training.model import load_base, load_tensors
from fedit_protocol.errors import DeviceError, ModelError
from fedit_protocol.task import Template

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training
QUESTION = [Message(Role.USER, "Say it, 3.")]


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """A document, its untrained adapter, and an adapter that has learned to say okokokok."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("trained")
    document = tiny_document(base, **{**SETTINGS, "training": {**SETTINGS["training"], "local_steps": 30}})
    before = write_adapter(document, folder / "before.safetensors")
    asked = TrainingRequest(document, base, before, letters(), b"seed", cpu("nf4"))
    update = train_here(load(document, base, asked.plan), asked, lambda _: None).update
    layout = document.layout
    after = layout.unflatten(layout.flatten(load_tensors(before, layout)) + update)
    (folder / "peft").mkdir()
    save_file(after, folder / "peft" / "adapter_model.safetensors")
    spec = document.task.adapter
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": spec.rank, "lora_alpha": spec.alpha,
              "target_modules": list(spec.target_modules), "base_model_name_or_path": str(base)}  # fmt: skip
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(config))
    return document, before, folder / "peft"


async def test_losses_by_category_for_base_and_adapters(base: Path, trained: tuple[Any, Path, Path]) -> None:
    document, before, after = trained
    told: list[tuple[int, int]] = []
    adapters = {"base": None, "start": before, "trained": after}
    losses = await WorkerEvaluator().evaluate(
        EvaluationRequest(document, base, adapters, letters(6), cpu("nf4")),
        lambda progress: told.append((progress.done, progress.total)),
    )
    assert set(losses) == set(adapters)
    assert losses["base"].by_category.keys() == {"even", "odd"}
    # 4 tokens of answer and its end, in 3 rows of each category.
    assert losses["base"].tokens == {"even": 15, "odd": 15}
    # B is 0 in a fresh adapter, so it changes nothing.
    assert losses["start"].by_category == losses["base"].by_category
    assert losses["trained"].mean < 0.3 * losses["base"].mean
    assert told[-1] == (18, 18)


async def test_single_rows_are_measured_apart(base: Path, trained: tuple[Any, Path, Path]) -> None:
    document, _, after = trained
    told: list[tuple[int, int]] = []
    asked = MeasureRequest(
        document, base, {"base": None, "trained": after}, letters(20), cpu("nf4"), b"held-out", 0.2, 3
    )
    found = await WorkerMeasurer().measure(asked, lambda progress: told.append((progress.done, progress.total)))
    assert (found.rows, found.left_out, told[-1]) == (3, 1, (6, 6))
    assert found.tokens.tolist() == [5.0] * 3
    assert found.accuracy("trained") == 1.0
    assert found.accuracy("base") < 0.5
    assert found.difference("trained", "base").high < 0


def test_single_rows_add_up_to_the_losses(base: Path, trained: tuple[Any, Path, Path]) -> None:
    document, _, after = trained
    loaded = load(document, base, cpu("nf4"))
    found = chosen_rows(letters(20), loaded.tokenizer, document.task.prompt, 0.2, b"held-out", 256)
    held_out = split(letters(20), 0.2, b"held-out")[1]
    assert (len(found.examples), found.left_out) == (len(held_out), 0) == (4, 0)
    for adapter in (None, after):
        losses, _ = figures_of(loaded, document, adapter, found.examples, lambda _done, _of: None)
        whole = losses_of(loaded, document, adapter, held_out, lambda _done, _of: None)
        summed = sum(whole.by_category[name] * whole.tokens[name] for name in whole.tokens)
        assert sum(losses) == pytest.approx(summed, rel=1e-3)


def test_every_category_has_the_same_say() -> None:
    assert math.isclose(CategoryLosses({"a": 1.0, "b": 3.0}, {"a": 1000, "b": 1}).mean, 2.0)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chat(base: Path, trained: tuple[Any, Path, Path]) -> AsyncIterator[WorkerChat]:
    async with WorkerChat(base, cpu("nf4"), trained[2], beside={"base": None, "twin": trained[2]}) as talking:
        yield talking


async def answer(chat: WorkerChat, **options: Any) -> str:
    return "".join([piece async for piece in chat.ask(QUESTION, **options)])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_trained_adapter_answers_and_stops(chat: WorkerChat) -> None:
    assert await answer(chat, max_tokens=40) == "okokokok"
    assert await answer(chat, max_tokens=2) == "okok"


@pytest.mark.asyncio(loop_scope="module")
async def test_voices_on_one_base_do_not_mix(chat: WorkerChat) -> None:
    told = {voice: await answer(chat, voice=voice, max_tokens=40) for voice in ("", "base", "twin", "")}
    assert (told[""], told["twin"]) == ("okokokok", "okokokok")
    assert told["base"] != "okokokok"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_that_is_left_early_does_not_spoil_the_next(chat: WorkerChat) -> None:
    async for _ in chat.ask(QUESTION, max_tokens=1000, temperature=5.0):
        break
    assert await answer(chat, max_tokens=40) == "okokokok"


@pytest.mark.asyncio(loop_scope="module")
async def test_chance_comes_from_the_seed(chat: WorkerChat) -> None:
    drawn = [await answer(chat, max_tokens=20, temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_likeliest_token_is_left_when_the_others_are_cut_off(chat: WorkerChat) -> None:
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        assert await answer(chat, max_tokens=40, temperature=3.0, **narrow) == "okokokok"
    wide = [await answer(chat, max_tokens=20, temperature=3.0, seed=1, **cut) for cut in ({}, {"top_k": 3})]
    assert wide[0] != wide[1]


@pytest.mark.asyncio(loop_scope="module")
async def test_beams_find_the_likeliest_answer_whole(chat: WorkerChat) -> None:
    pieces = [piece async for piece in chat.ask(QUESTION, max_tokens=40, beams=4)]
    assert pieces == ["okokokok"]
    assert await answer(chat, max_tokens=8, beams=2, temperature=1.0, top_p=0.75, top_k=40) != ""
    async for _ in chat.ask(QUESTION, max_tokens=40, beams=2):
        break
    assert await answer(chat, max_tokens=40) == "okokokok"


async def test_a_file_with_its_document_is_attached_too(base: Path, trained: tuple[Any, Path, Path]) -> None:
    document, _, after = trained
    async with WorkerChat(base, cpu("nf4"), after / "adapter_model.safetensors", document) as talking:
        assert await answer(talking, max_tokens=40) == "okokokok"


async def test_a_file_without_its_document_is_refused(base: Path, trained: tuple[Any, Path, Path]) -> None:
    with pytest.raises(ModelError) as refused:
        async with WorkerChat(base, cpu("nf4"), trained[1]):
            pass
    assert refused.value.code == "M004"


async def test_the_base_alone_can_be_asked_until_its_worker_dies(base: Path) -> None:
    async with WorkerChat(base, cpu("fp32")) as talking:
        assert await answer(talking, max_tokens=5)
        assert talking._worker is not None
        await talking._worker.stop()
        with pytest.raises(DeviceError):
            await answer(talking)


async def test_asking_outside_the_block_is_a_mistake(base: Path) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await answer(WorkerChat(base, cpu()))


def test_saved_adapters_are_measured_as_by_their_layout(base: Path, trained: tuple[Any, Path, Path]) -> None:
    document, _, after = trained
    by_layout = load(document, base, cpu("nf4"))
    found = chosen_rows(letters(6), by_layout.tokenizer, document.task.prompt, 0.0, b"", 256)
    assert sorted(found.places) == list(range(6))
    model, voices = _attached(load_base(base, cpu("nf4")), {"base": None, "trained": str(after)})
    for name, adapter in (("base", None), ("trained", after)):
        with speaking(model, voices[name]):
            losses, right = row_figures(Loaded(model, by_layout.tokenizer), found.examples, lambda _done, _of: None)
        expected, hits = figures_of(by_layout, document, adapter, found.examples, lambda _done, _of: None)
        assert losses == pytest.approx(expected, rel=1e-3)
        assert right == hits


@pytest.mark.slow
async def test_saved_adapters_are_measured_and_answer_in_a_process(base: Path, trained: tuple[Any, Path, Path]) -> None:
    document, _, after = trained
    adapters = {"base": None, "trained": after}
    asked = MeasureRequest(None, base, adapters, letters(6), cpu("nf4"), prompt=document.task.prompt)
    found = await WorkerMeasurer().measure(asked, lambda _: None)
    assert found.accuracy("trained") == 1.0
    assert found.peak_bytes > 10**8
    assert all(figures.seconds > 0 for figures in found.figures.values())
    async with WorkerChat(base, cpu("nf4"), beside=adapters, template=Template.ALPACA) as talking:
        question = [Message(Role.USER, "Say it, 3.\n\nHere")]
        told = {name: "".join([piece async for piece in talking.ask(question, voice=name, context="Here")])
                for name in adapters}  # fmt: skip
    assert told["trained"] != told["base"]
