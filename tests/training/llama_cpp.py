"""llama.cpp as a second opinion: next tokens with their log-probabilities, from a GGUF file, in a process of its own.

A process, because llama.cpp writes its log to the terminal past Python, and keeps threads.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_ASK = """
import json, sys, urllib.request
import xllamacpp as llama

asked = json.loads(sys.stdin.read())
given = llama.CommonParams()
given.model.path, given.n_ctx, given.n_parallel, given.n_gpu_layers = asked["file"], 512, 1, 0
given.cpuparams.n_threads = 1
given.warmup = False
if asked["lora"]:
    given.lora_adapters = [llama.CommonAdapterLoraInfo(asked["lora"], 1.0)]
server = llama.Server(given)
answers = []
for request in asked["requests"]:
    if "content" in request:
        body = json.dumps(request).encode()
        kind = {"Content-Type": "application/json"}
        posted = urllib.request.Request(server.listening_address + "/tokenize", body, kind)
        answers.append(json.loads(urllib.request.urlopen(posted).read())["tokens"])
        continue
    ask = server.handle_chat_completions if "messages" in request else server.handle_completions
    answers.append(ask(request))
sys.stdout.write("\\nANSWERS " + json.dumps(answers) + "\\n")
"""


def ask(file: Path, requests: Sequence[dict[str, Any]], lora: Path | None = None) -> list[Any]:
    """Load a GGUF file, with a LoRA of its own if there is one, and return an answer to each request."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is asked through xllamacpp, which is not installed here")
    question = {"file": str(file), "lora": str(lora) if lora else None, "requests": list(requests)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _ASK], input=json.dumps(question), capture_output=True, text=True,
                          timeout=300, env=environment)  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")), None)
    assert line is not None, (done.stdout + done.stderr)[-2000:]
    answers: list[Any] = json.loads(line.removeprefix("ANSWERS "))
    return answers


def next_tokens(
    file: Path, prompts: Sequence[Sequence[int]], *, best: int = 10, lora: Path | None = None
) -> list[dict[int, float]]:
    """Return, for each prompt of ids, the `best` likeliest next tokens with their log-probabilities.

    The likeliest must be a whole character: llama.cpp tells nothing of a token that is only a part of one.
    """
    requests = [
        {"prompt": list(ids), "n_predict": 1, "temperature": 0, "logprobs": best, "ignore_eos": True} for ids in prompts
    ]
    return [
        {one["id"]: one["logprob"] for one in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        for answer in ask(file, requests, lora)
    ]


def tokens(file: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids that llama.cpp makes of each text, nothing added, special tokens recognised."""
    requests = [{"content": text, "add_special": False, "parse_special": True} for text in texts]
    return [list(found) for found in ask(file, requests)]


def greedy_text(file: Path, prompt: str | Sequence[int], count: int, lora: Path | None = None) -> str:
    """Return the likeliest continuation of a text."""
    given = prompt if isinstance(prompt, str) else list(prompt)
    (answer,) = ask(file, [{"prompt": given, "n_predict": count, "temperature": 0}], lora)
    return str(answer["choices"][0]["text"])
