"""The bench of training drives the loop by hand: a change of the loop must not break it unseen."""

import pytest

from ..bench.training_peers import Watch, fedit
from ..bench.training_setting import Setting

pytestmark = pytest.mark.training


@pytest.mark.parametrize("quantization", ["nf4", "bf16"])
def test_our_own_part_of_the_bench_runs_on_a_small_base(quantization: str) -> None:
    setting = Setting(
        "fedit",
        random_weights=True,
        layers=1,
        width=256,
        quantization=quantization,
        checkpointing=quantization == "nf4",
        rows=8,
        batch=4,
        micro=2,
        cutoff=32,
        held_out=2,
    )
    watch = Watch(cuda=False)
    _, held_out, more = fedit(setting, watch)
    assert (len(watch.marks), len(held_out)) == (2, 2)
    assert watch.marks[-1][2] == watch.tokens > 0
    assert more["packs"] == 1
    assert isinstance(more["over_matmul_limit"], float)
