"""A yes is kept as data; taking it back holds from the next step on, also of a client that runs."""

import asyncio
from pathlib import Path

import pytest

from fedit_client import Client
from fedit_client.agreements import Agreements
from fedit_client.cli import invoke
from fedit_client.events import Event, EventKind
from fedit_client.identity import load_or_create_identity
from fedit_client.paths import Paths
from fedit_client.testing import FakeTrainer
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConsentError
from fedit_protocol.messages import Abort
from fedit_protocol.signing import Kind, read_envelope

from .conftest import HttpsFederation

ROWS = [{"prompt": "say one", "completion": "one"}] * 20


async def joined(https: HttpsFederation, home: Path, trainer: FakeTrainer | None = None) -> Client:
    client = Client.open(https.invite, home=home, trainer=trainer or FakeTrainer())
    client.add_records(ROWS)
    await client.join(consent=(await client.fetch_offer()).accept())
    return client


async def test_a_yes_is_kept_with_the_words_that_were_shown(https: HttpsFederation, tmp_path: Path) -> None:
    client = await joined(https, tmp_path)
    await joined(https, tmp_path)  # the same yes again
    (kept,) = Agreements(Paths.under(tmp_path).consents).all()
    membership = client.require_membership()
    assert (kept.kind, kept.label, kept.given_by) == ("agreed", "test-task@1", "join")
    assert (kept.document, kept.digest) == (membership.document, https.document.digest)
    assert "Never leaves:" in kept.summary
    assert kept.at >= membership.joined_at - 1
    assert kept.client_version


async def test_a_yes_that_was_taken_back_ends_the_next_run_until_it_is_given_again(
    https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await joined(https, tmp_path)
    home = ("--home", str(tmp_path))
    assert invoke(["consent", "withdraw", *home]) == 0
    assert invoke(["consent", "show", *home]) == 0
    assert "you took back your consent to test-task@1" in capsys.readouterr().out
    assert await asyncio.to_thread(invoke, ["run", "--no-input", *home]) == 7
    said = capsys.readouterr().err
    assert "FEDIT-A005" in said
    assert "fix:   fedit-client consent diff" in said
    assert await asyncio.to_thread(invoke, ["consent", "diff", "--accept", "test-task@1", *home]) == 0
    assert "which you took back" in capsys.readouterr().out
    assert await asyncio.to_thread(invoke, ["consent", "diff", *home]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    kinds = [one.kind for one in Agreements(Paths.under(tmp_path).consents).all()]
    assert kinds == ["agreed", "withdrawn", "agreed"]


async def test_what_is_taken_back_while_training_never_leaves(https: HttpsFederation, tmp_path: Path) -> None:
    release, training = asyncio.Event(), asyncio.Event()
    slow = await joined(https, tmp_path / "slow", FakeTrainer(wait_for=release))
    others = [await joined(https, tmp_path / name, FakeTrainer(wait_for=release)) for name in ("a", "b")]
    running = [asyncio.create_task(client.run_to_end()) for client in others]
    paths = Paths.under(tmp_path / "slow")

    def take_back(event: Event) -> None:
        if event.kind is EventKind.PROGRESS and event.text.startswith("train") and not training.is_set():
            training.set()
            Agreements(paths.consents).withdraw(slow.require_membership(), "test")
            release.set()

    try:
        with pytest.raises(ConsentError) as ended:
            await slow.run_to_end(on_event=take_back)
    finally:
        for one in running:
            one.cancel()
        await asyncio.wait(running)
    assert ended.value.code == "A005"
    assert "A005" in [decode(Abort, read_envelope(body, Kind.ABORT).body).problem for _, body in https.loopback.aborts]
    own = load_or_create_identity(paths.identity_file).public
    assert own not in {sender for sender, _ in https.loopback.uploads}
