"""The adapter versions on a device: fetched, listed, remembered with what is known of them, on a card for people."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedit_client.adapters.editions import (
    FACTS,
    KeptVersion,
    edition_in,
    kept_versions,
    own_losses,
    remember_own,
    version_here,
)
from fedit_client.adapters.kept import TENSORS, AdapterShelf
from fedit_client.cli import invoke
from fedit_client.conversations.pulling import pulled
from fedit_client.evaluation.own_losses import own_line
from fedit_client.network.patience import Patience
from fedit_client.testing import LoopbackServer, LoopbackTransport
from fedit_protocol.errors import MembershipError, SecurityError
from fedit_protocol.ids import Digest
from fedit_protocol.peft_folder import CARD, Edition, OwnLoss, Usage, model_card
from fedit_protocol.testing import MemoryFederation, small_task

from ..joined_home import joined_home

DOCUMENT = small_task()
TASK = DOCUMENT.task
DIGEST = Digest("sha256:" + "1" * 64)


class Shop:
    """A server with versions, and a shelf to bring them home to."""

    def __init__(self, folder: Path) -> None:
        federation = MemoryFederation(3)
        self.folder = folder
        self.server = LoopbackServer(federation, DOCUMENT)
        self.transport: LoopbackTransport = self.server.transport(federation.devices[0].public)
        self.shelf = AdapterShelf(folder, DOCUMENT, "Apache-2.0")

    async def pull(self, version: int | None = None) -> KeptVersion:
        patience = Patience(lambda _: None, self.server.clock, max_wait_s=0.01)
        return await pulled(self.transport, self.shelf, patience, TASK.id, version, lambda _done, _of: None)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "adapters")


async def test_the_newest_version_is_pulled_and_known(shop: Shop) -> None:
    kept = await shop.pull()
    assert (kept.version, kept.folder) == (0, shop.folder / TASK.id / "0")
    assert (kept.edition.digest, kept.edition.licence) == (shop.server.digests[0], "Apache-2.0")
    assert kept_versions(shop.folder, TASK.id) == [kept]
    assert await shop.pull(0) == kept
    assert version_here(shop.folder, TASK.id).version == 0


async def test_a_version_that_nobody_has_is_refused(shop: Shop) -> None:
    with pytest.raises(MembershipError) as refused:
        await shop.pull(7)
    assert (refused.value.code, refused.value.fix) == ("J007", "fedit-client adapters pull, for the newest one")
    assert kept_versions(shop.folder, TASK.id) == []


async def test_an_answer_about_something_else_is_an_alarm(shop: Shop) -> None:
    shop.server.document = DOCUMENT.model_copy(update={"task": TASK.model_copy(update={"id": "other"})})
    with pytest.raises(SecurityError, match="not asked for"):
        await shop.pull()


async def test_what_was_known_of_a_version_stays_when_it_is_fetched_again(shop: Shop) -> None:
    kept = await shop.pull()
    remember_own(kept.folder, TASK, OwnLoss(2.5, 32, 4.0))
    again = await shop.pull()
    assert again.edition == replace(kept.edition, own=OwnLoss(2.5, 32, 4.0))
    assert "loss 2.500, 4.000 for the base alone, on 32 held-out rows" in (kept.folder / CARD).read_text()


async def test_the_loss_that_training_saw_is_noted_but_does_not_hide_what_eval_found(shop: Shop) -> None:
    kept = await shop.pull()
    shop.shelf.note_own_loss(0, 3.5, 3.0)
    assert own_losses(shop.folder, TASK.id) == {0: OwnLoss(3.5, trained=3.0)}
    assert own_line({0: OwnLoss(3.5, trained=3.0), 1: None}) == (
        "loss on held-out rows: version 0 3.500 (3.000 after training here), version 1 not measured; fedit-client eval"
    )
    assert own_line({0: None}) is None
    remember_own(kept.folder, TASK, OwnLoss(3.25, 64))
    shop.shelf.note_own_loss(0, 3.75, 2.75)
    assert own_losses(shop.folder, TASK.id) == {0: OwnLoss(3.25, 64, trained=2.75)}
    assert "2.750" not in (kept.folder / CARD).read_text()


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"version": "x"}'])
async def test_a_folder_of_before_is_known_by_what_is_seen(content: bytes | None, shop: Shop) -> None:
    kept = await shop.pull()
    if content is None:
        (kept.folder / FACTS).unlink()
    else:
        (kept.folder / FACTS).write_bytes(content)
    assert edition_in(kept.folder) == Edition(0, shop.server.digests[0])


def test_a_card_says_what_is_known_and_nothing_else() -> None:
    bare = model_card(TASK, Edition(4, DIGEST))
    assert "no noise was added" in bare
    assert "see its publisher" in bare
    assert "evaluation" not in bare
    known = Edition(4, DIGEST, round_no=4, survivors=12, epsilon=1.234, delta=1e-5, licence="Apache-2.0")
    card = model_card(TASK, replace(known, own=OwnLoss(2.0)))
    assert "Round 4 of the federated task `test-task@1`, from 10 to 19 devices." in card
    assert "epsilon at most 1.23 for one device over all rounds so far, delta 1e-05" in card
    assert 'license: "apache-2.0"' in card
    assert "| evaluation | loss 2.000, on held-out rows of one device |" in card
    assert card == model_card(TASK, replace(known, own=OwnLoss(2.0)))
    other = model_card(TASK, known, Usage("gguf", "```sh\nllama-server -m x.gguf\n```", ()))
    assert 'library_name: "gguf"' in other
    assert "PeftModel" not in other


def test_versions_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / TENSORS).write_bytes(b"tensors")
    home = joined_home(tmp_path / "home", DOCUMENT, {0: tmp_path / TENSORS, 10: tmp_path / TENSORS})
    monkeypatch.setenv("FEDIT_HOME", str(home.home))
    remember_own(home.paths.adapters / TASK.id / "10", TASK, OwnLoss(1.5))
    assert invoke(["adapters", "list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("version 0 · summed over 3 devices · ")
    assert second.startswith("version 10 · round 10 · summed over 3 devices · loss 1.500 on your own rows · ")
    assert invoke(["adapters", "list", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [one["version"] for one in data["adapters"]] == [0, 10]
