"""`eval` for oneself: which rows, what is said of them, what is kept, and that nothing asks a server."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fedit_client.adapters.editions import edition_in, own_losses
from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.own_evaluation import OwnEvaluation, OwnWishes, evaluate_own
from fedit_client.evaluation import Measured, RowFigures
from fedit_client.evaluation.own_losses import losses_here, own_change
from fedit_client.membership.identity import held_out_seed, load_or_create_identity
from fedit_client.records.contacts import HUB, Contacts
from fedit_client.records.history import RoundEntry
from fedit_client.running.standing import standing
from fedit_client.testing import FakeMeasurer
from fedit_protocol.errors import DataError
from fedit_protocol.peft_folder import CARD, OwnLoss
from fedit_protocol.testing import small_task

from ..joined_home import joined_home

DOCUMENT = small_task()
TASK = DOCUMENT.task
BETTER = FakeMeasurer(
    {"base": [4.0, 5.0, 4.5, 5.5], "version 1": [3.0, 4.5, 4.0, 5.0], "version 2": [2.0, 3.0, 2.5, 3.0]}
)


@pytest.fixture
def home(tmp_path: Path) -> ClientConfig:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": "yes"}) + "\n" for n in range(40)))
    tensors = tmp_path / "tensors"
    tensors.write_bytes(b"tensors")
    return joined_home(tmp_path / "home", DOCUMENT, {0: tensors, 1: tensors, 2: tensors}, data=(str(rows),))


async def evaluated(home: ClientConfig, measurer: FakeMeasurer, *data: Path) -> OwnEvaluation:
    return await evaluate_own(home, Console(quiet=True), OwnWishes(data), measurer)


async def test_the_newest_two_are_measured_on_the_rows_that_training_leaves_alone(home: ClientConfig) -> None:
    measurer = FakeMeasurer(BETTER.losses)
    found = await evaluated(home, measurer)
    (request,) = measurer.requests
    versions = home.paths.adapters / TASK.id
    assert request.adapters == {"base": None, "version 1": versions / "1", "version 2": versions / "2"}
    assert len(request.records) == 40
    assert request.fraction == TASK.training.held_out_fraction > 0
    assert request.split_seed == held_out_seed(load_or_create_identity(home.paths.identity_file))
    assert found.lines() == [
        "on 4 rows of yours held out of training, 40 answer tokens",
        "  base       loss 4.750  right tokens 50.0 %",
        "  version 1  loss 4.125  right tokens 50.0 %",
        "  version 2  loss 2.625  right tokens 50.0 %",
        "version 2 against base: loss -2.125 (95 % interval -2.375 to -2.000): better",
        "version 2 against version 1: loss -1.500 (95 % interval -1.875 to -1.125): better",
    ]


async def test_what_was_measured_is_kept_on_the_card_and_shown_in_status_and_history(home: ClientConfig) -> None:
    await evaluated(home, FakeMeasurer(BETTER.losses))
    assert own_losses(home.paths.adapters, TASK.id) == {0: None, 1: OwnLoss(4.125, 4, 4.75), 2: OwnLoss(2.625, 4, 4.75)}
    card = (home.paths.adapters / TASK.id / "2" / CARD).read_text()
    assert "loss 2.625, 4.750 for the base alone, on 4 held-out rows" in card
    told = [line for line in standing(home).lines() if line.startswith("own rows")]
    assert told == ["own rows    loss on held-out rows: version 0 not measured, version 1 4.125, version 2 2.625"]
    texts = dict.fromkeys(("server", "federation_id", "task", "task_digest", "model", "model_digest", "round_id"), "x")
    facts = {**texts, "started_at": 0, "ended_at": 1, "mode": "masked", "round_no": 2, "outcome": "committed",
             "adapter_before": 1, "adapter_before_digest": "d", "adapter_after": 2}  # fmt: skip
    entry = RoundEntry.model_validate(facts)
    assert own_change(losses_here(home.paths), entry) == " · own rows 4.125 → 2.625"
    assert own_change(losses_here(home.paths), entry.model_copy(update={"adapter_before": 0})) == ""


async def test_rows_that_are_named_are_all_used_and_nothing_is_kept(home: ClientConfig, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    measurer = FakeMeasurer(BETTER.losses)
    found = await evaluated(home, measurer, other)
    assert (len(measurer.requests[0].records), measurer.requests[0].fraction) == (1, 0.0)
    assert found.lines()[0] == "on 4 rows that you named, 40 answer tokens"
    assert edition_in(home.paths.adapters / TASK.id / "2").own is None


async def test_asking_the_hub_for_rows_that_are_named_is_noted(
    home: ClientConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    with pytest.raises(DataError) as refused:
        await evaluated(home, FakeMeasurer(BETTER.losses), Path("org/name"))
    assert refused.value.code == "D019"
    assert [contact["purpose"] for contact in Contacts(home.paths.contacts_file).all().values()] == [HUB]


async def test_a_task_that_holds_nothing_out_wants_rows_to_be_named(tmp_path: Path) -> None:
    spec = TASK.training.model_copy(update={"held_out_fraction": 0.0})
    document = DOCUMENT.model_copy(update={"task": TASK.model_copy(update={"training": spec})})
    with pytest.raises(DataError) as refused:
        await evaluated(joined_home(tmp_path, document, {}), FakeMeasurer({"base": [1.0]}))
    assert (refused.value.code, refused.value.fix) == ("D020", "fedit-client eval --data rows.jsonl")


async def test_before_any_adapter_the_base_stands_alone(home: ClientConfig, tmp_path: Path) -> None:
    alone = joined_home(tmp_path / "alone", DOCUMENT, {}, data=(str(tmp_path / "rows.jsonl"),))
    found = await evaluated(alone, FakeMeasurer({"base": [1.0, 2.0]}))
    assert found.lines()[1:] == ["  base  loss 1.500  right tokens 50.0 %"]
    assert found.as_data()["newest_against"] == {}


async def test_categories_are_told_apart(home: ClientConfig) -> None:
    found = await evaluated(home, FakeMeasurer(BETTER.losses, ("poem", "poem", "", "")))
    assert found.lines()[-3:] == ["by category, base → version 2:", "  (none): 5.000 → 2.750", "  poem: 4.500 → 2.500"]
    data = found.as_data()
    assert data["models"]["version 2"]["by_category"] == {"": 2.75, "poem": 2.5}
    assert data["newest_against"]["base"]["verdict"] == "better"


def figures(*differences: float) -> Measured:
    other = np.full(len(differences), 10.0)
    mine = other + np.array(differences)
    named = {"new": RowFigures(mine, mine * 0), "old": RowFigures(other, mine * 0)}
    return Measured(("",) * len(differences), np.ones(len(differences)), named)


VERDICTS = {
    "better on every row": ((-1.0, -1.5, -0.5, -1.0, -2.0), "better"),
    "worse on every row": ((1.0, 1.5, 0.5, 1.0, 2.0), "worse"),
    "better on some and worse on others": ((1.0, -1.5, 0.5, -1.0, 2.0), "no clear difference"),
    "the same": ((0.0, 0.0, 0.0, 0.0), "no clear difference"),
    "better on the only row": ((-1.0,), "too few rows to say"),
    "better on three rows": ((-1.0, -1.5, -0.5), "too few rows to say"),
}


@pytest.mark.parametrize(("differences", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_a_difference_is_called_one_when_its_interval_says_so(differences: tuple[float, ...], verdict: str) -> None:
    found = figures(*differences).difference("new", "old")
    assert found.verdict == verdict
    assert found.low <= found.change <= found.high
    assert found == figures(*differences).difference("new", "old")  # the same rows, the same words


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    differences = np.random.default_rng(0).normal(-0.1, 1.0, 400)
    found = figures(*differences).difference("new", "old")
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * differences.std() / 20, rel=0.1)
