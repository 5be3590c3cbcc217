"""The method fedit_rs on plain numbers: what it recovers of the mean product, and what it refuses (C18)."""

import numpy as np
import pytest

from fedit_protocol.adapter import AdapterLayout, TensorSpec, Vector
from fedit_protocol.errors import ConfigError, ProblemType
from fedit_protocol.methods import Correction, RoundStart
from fedit_protocol.methods.fedit_rs import FedItRs
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.metrics import NO_REPORT
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName, MethodSpec
from fedit_protocol.testing import two_sum_task

from .rounds import refused

M, N, RANK = 24, 20, 2
CONTEXT = b"\x07" * 32
METHOD = FedItRs()


def document(sketch_rank: int) -> TaskDocument:
    made = two_sum_task(12, M, N, RANK)
    method = MethodSpec(name=MethodName.FEDIT_RS, sketch_rank=sketch_rank)
    return made.model_copy(update={"task": made.task.model_copy(update={"method": method})})


def start(task: TaskDocument, context0: bytes = CONTEXT) -> RoundStart:
    return RoundStart(task, 0, np.zeros(task.layout.size, np.float32), context0)


def updates(count: int, seed: int = 3) -> list[Vector]:
    draw = np.random.default_rng(seed)
    return [draw.normal(size=RANK * N + M * RANK).astype(np.float32) for _ in range(count)]


def summed(vectors: list[Vector], size: int) -> Aggregate:
    """An aggregate as a ring without rounding would give it; every client weighs one."""
    total = np.stack(vectors).astype(np.float64).sum(axis=0)
    ring_sum = np.zeros(size, np.int64)
    return Aggregate(total[:size], len(vectors), len(vectors), NO_REPORT, ring_sum, sketch=total[size:])


def corrected(
    vectors: list[Vector], sketch_rank: int, second: list[int] | None = None
) -> tuple[Correction | None, float]:
    """Play both sums without quantization; return the correction and which share of the residual it leaves."""
    task = document(sketch_rank)
    first = summed([METHOD.client_message(vector, start(task)) for vector in vectors], task.layout.size)
    derived = METHOD.derive(first, start(task))
    assert derived is not None
    chosen = vectors if second is None else [vectors[number] for number in second]
    parts = [METHOD.second_message(vector, start(task), *derived) for vector in chosen]
    correction = METHOD.correction(first, summed(parts, len(parts[0])), start(task))
    (pair,) = lora_pairs(task.layout)
    factors = [pair.factors(vector) for vector in vectors]
    mean_a, mean_b = (np.mean([each[place] for each in factors], axis=0) for place in (0, 1))
    residual = np.mean([b @ a for a, b in factors], axis=0) - mean_b @ mean_a
    left, right = correction.factors[pair.path] if correction else (np.zeros((M, 1)), np.zeros((1, N)))
    return correction, float(np.linalg.norm(residual - left @ right) / np.linalg.norm(residual))


def test_the_mean_product_is_exact_if_the_sketch_has_the_residuals_rank() -> None:
    """Four clients of rank 2: the residual has rank at most (4 - 1)·2 = 6. Float32 messages leave 1e-6."""
    correction, left = corrected(updates(4), 6)
    assert left < 1e-5
    assert correction is not None
    assert correction.error_after < 1e-4 * correction.error_before


def test_a_narrower_sketch_recovers_a_part_and_the_probes_say_how_much() -> None:
    """The hold-out estimate is a norm from four probes: it is within a third of the truth here."""
    correction, left = corrected(updates(8), 8)
    assert 0.05 < left < 0.6
    assert correction is not None
    assert correction.error_after / correction.error_before == pytest.approx(left, rel=0.35)


def test_one_client_missing_in_the_second_sum_costs_little() -> None:
    _, whole = corrected(updates(8), 8)
    _, partial = corrected(updates(8), 8, second=list(range(7)))
    assert whole < partial < 0.8


def test_a_correction_that_makes_it_worse_is_left_out() -> None:
    """The second sum is of one client out of eight: its residual is not the mean one."""
    correction, _ = corrected(updates(8), 8, second=[0])
    assert correction is None


def test_both_sides_draw_the_same_probes_and_another_round_draws_others() -> None:
    task, vector = document(4), updates(1)[0]
    one, again = METHOD.client_message(vector, start(task)), METHOD.client_message(vector, start(task))
    other = METHOD.client_message(vector, start(task, b"\x08" * 32))
    assert np.array_equal(one, again)
    assert not np.array_equal(one[task.layout.size :], other[task.layout.size :])


def test_an_update_beyond_the_clip_is_clipped_before_it_is_sketched() -> None:
    """The sketch is a product of two factors: clipped twice by the same share it would not fit the mean."""
    task, vector = document(4), updates(1)[0] * 1e4
    message = METHOD.client_message(vector, start(task))
    norm = float(np.linalg.norm(message[: task.layout.size].astype(np.float64)))
    assert norm == pytest.approx(task.task.encoding.clip_norm, rel=1e-5)
    again = METHOD.client_message(message[: task.layout.size], start(task))
    assert np.allclose(message, again, rtol=1e-4)


def test_the_rings_say_how_long_each_message_is() -> None:
    task, vectors = document(4), updates(4)
    first, second = (spec.ring for spec in sum_specs(task))
    message = METHOD.client_message(vectors[0], start(task))
    assert len(message) == first.size + first.sketch_size
    aggregate = summed([METHOD.client_message(each, start(task)) for each in vectors], task.layout.size)
    derived = METHOD.derive(aggregate, start(task))
    assert derived is not None
    assert len(METHOD.second_message(vectors[0], start(task), *derived)) == second.size
    assert second.metrics == ()


# --- C18: what no honest server derives -----------------------------------------------------------


def honest_input() -> tuple[TaskDocument, bytes, bytes]:
    task = document(4)
    first = summed([METHOD.client_message(vector, start(task)) for vector in updates(6)], task.layout.size)
    derived = METHOD.derive(first, start(task))
    assert derived is not None
    return task, *derived


def spoiled(blob: bytes, place: int, value: float) -> bytes:
    numbers = np.frombuffer(blob, "<f4").copy()
    numbers[place] = value
    return numbers.tobytes()


@pytest.mark.parametrize(
    "case", ["short result", "long input", "nan in the result", "inf in the input", "a longer column", "equal columns"]
)
def test_c18_an_input_that_no_honest_server_derives_is_refused(case: str) -> None:
    task, result, derived = honest_input()
    q = np.frombuffer(derived, "<f4").reshape(M, 4).copy()
    q[:, 1] = q[:, 0]
    result, derived = {
        "short result": (result[:-4], derived),
        "long input": (result, derived + b"\x00" * 4),
        "nan in the result": (spoiled(result, 5, np.nan), derived),
        "inf in the input": (result, spoiled(derived, 0, np.inf)),
        "a longer column": (result, (2 * np.frombuffer(derived, "<f4")).astype("<f4").tobytes()),
        "equal columns": (result, q.tobytes()),
    }[case]
    with refused(ProblemType.POLICY_REFUSED):
        METHOD.second_message(updates(1)[0], start(task), result, derived)


def test_a_sketch_wider_than_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        sum_specs(document(M + 1))
    assert error.value.code == "C023"


def test_an_adapter_without_pairs_is_refused() -> None:
    layout = AdapterLayout(tensors=(TensorSpec(name="layer.lora_A.weight", shape=(RANK, N)),))
    with pytest.raises(ConfigError) as error:
        sum_specs(document(2).model_copy(update={"layout": layout}))
    assert error.value.code == "C023"
