"""The examples do what they say, against a real HTTPS server."""

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fedit_client.testing import FakeTrainer

from .conftest import HttpsFederation

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_quickstart(https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"say one","completion":"one"}\n' * 20)
    contribute = load("quickstart/quickstart.py").contribute
    async with asyncio.timeout(30):
        adapters = await asyncio.gather(
            *(contribute(https.invite, rows, tmp_path / str(n), lambda _: True, FakeTrainer()) for n in range(3))
        )
    assert all((adapter / "adapter_model.safetensors").exists() for adapter in adapters)
    assert "100%" in capsys.readouterr().out


async def test_quickstart_takes_no_for_an_answer(https: HttpsFederation, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"say one","completion":"one"}\n')
    contribute = load("quickstart/quickstart.py").contribute
    assert await contribute(https.invite, rows, tmp_path / "home", lambda _: False) is None
    assert https.asked == ["GET /v1/federation", "GET /v1/tasks"]


async def test_custom_trainer(https: HttpsFederation, tmp_path: Path) -> None:
    contribute = load("custom_trainer/custom_trainer.py").contribute
    async with asyncio.timeout(30):
        adapters = await asyncio.gather(*(contribute(https.invite, tmp_path / str(number)) for number in range(3)))
    assert {adapter.name for adapter in adapters} == {"1"}
