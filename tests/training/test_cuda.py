"""What only a CUDA device can show: optimizers with paged moments, and runs that go on there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedit_client.training.checkpoint import CheckpointFile
from fedit_client.training.optimizer import make_optimizer, page_again
from fedit_protocol.task import Optimizer, TrainingSpec

from .test_checkpoint import StopAfter, StoppedError, request, run

pytestmark = [pytest.mark.training, pytest.mark.gpu]


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("kind", ["nf4", "bf16"])
def test_a_run_on_cuda_goes_on_where_it_was_stopped(
    kind: str, optimizer: Optimizer, base: Path, tmp_path: Path
) -> None:
    asked, file = request(base, tmp_path, kind, 64, optimizer=optimizer), CheckpointFile(tmp_path / "run.safetensors")
    asked = replace(asked, plan=replace(asked.plan, device="cuda:0", compute_dtype="bfloat16"))
    whole = run(asked)
    with pytest.raises(StoppedError):
        run(asked, StopAfter(file, 2))
    second = StopAfter(file)
    again = run(asked, second)
    assert second.found
    # Not to the bit: on CUDA sums may come in another order.
    assert np.linalg.norm(again.update - whole.update) < 0.02 * np.linalg.norm(whole.update)


def test_paged_moments_are_paged_again_after_loading() -> None:
    def made() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.ones(512, 512, device="cuda"))
        return parameter, make_optimizer([parameter], TrainingSpec(), Optimizer.PAGED_ADAMW_8BIT)

    first, optimizer = made()
    (first**2).sum().backward()
    optimizer.step()
    second, loaded = made()
    loaded.load_state_dict(optimizer.state_dict())
    page_again(loaded)
    assert loaded.state[second]["state1"].is_paged
    assert torch.equal(loaded.state[second]["state1"].cpu(), optimizer.state[first]["state1"].cpu())
    (second**2).sum().backward()
    loaded.step()
