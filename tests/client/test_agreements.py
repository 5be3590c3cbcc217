"""A yes is kept as data; taking it back holds from the next step on, also of a client that runs."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedit_client import Client
from fedit_client.cli import invoke
from fedit_client.consent.agreements import Agreements, ConsentWatch
from fedit_client.events import Event, RoundStage
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.joined import Membership, rewriting
from fedit_client.membership.trust import PinnedBy
from fedit_client.records.journal import Journal
from fedit_client.session import Session
from fedit_client.testing import FakeTrainer
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ConsentError, TransportError
from fedit_protocol.messages import Abort
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.testing import small_task

from .conftest import HttpsFederation
from .test_session import World, eventually, running

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
    assert await asyncio.to_thread(invoke, ["run", *home]) == 7  # no terminal: nobody would be told to agree
    said = capsys.readouterr().err
    assert "FEDIT-A005" in said
    assert f"fix:   fedit-client --home {tmp_path} consent diff" in said
    assert await asyncio.to_thread(invoke, ["consent", "diff", "--accept", "test-task@1", *home]) == 0
    assert "which you took back" in capsys.readouterr().out
    assert await asyncio.to_thread(invoke, ["consent", "diff", *home]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    kinds = [one.kind for one in Agreements(Paths.under(tmp_path).consents).all()]
    assert kinds == ["agreed", "withdrawn", "agreed"]


@pytest.mark.parametrize("stage", [RoundStage.TRAIN, RoundStage.MASK, RoundStage.UPLOAD])
async def test_what_is_taken_back_before_it_is_sent_never_leaves(
    https: HttpsFederation, tmp_path: Path, stage: RoundStage
) -> None:
    release, taken_back = asyncio.Event(), asyncio.Event()
    slow = await joined(https, tmp_path / "slow", FakeTrainer(wait_for=release))
    others = [await joined(https, tmp_path / name, FakeTrainer(wait_for=release)) for name in ("a", "b")]
    running = [asyncio.create_task(client.run_to_end()) for client in others]
    paths = Paths.under(tmp_path / "slow")

    def take_back(event: Event) -> None:
        if event.stage is stage and not taken_back.is_set():
            taken_back.set()
            Agreements(paths.consents).withdraw(slow.require_membership(), "test")
        if event.stage is RoundStage.TRAIN:
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


async def test_what_was_interrupted_is_not_sent_after_a_no(tmp_path: Path) -> None:
    """Frozen bytes of a round that still runs stay here, and are forgotten, once the yes is taken back."""
    world, paths = World(tmp_path, small_task(3, rounds=1)), Paths.under(tmp_path / "after")
    dead = world.devices[0]
    powerless: list[str] = []

    def lose_power(path: str) -> None:
        if "/uploads/" in path or powerless:
            powerless.append(path)
            raise TransportError("no power")

    dead.transport.before = lose_power
    async with running(world) as tasks:
        await eventually(lambda: bool(powerless))
        shutil.copytree(tmp_path / "0" / "journal", tmp_path / "after" / "journal")
        tasks[0].cancel()
        after_crash, own = world.device(0, tmp_path / "after"), dead.engagement
        membership = Membership(
            host="server",
            port=8443,
            pinned_by=PinnedBy.INVITE,
            descriptor=encode(own.descriptor),
            certificate=world.federation.certificate(own.key.public),
            log_head=world.federation.log_head(),
            label="",
            consent="test-task@1",
            document=encode(world.document),
            joined_at=0,
        )
        membership.save(paths.membership_file)
        Agreements(paths.consents).withdraw(membership, "test")
        engagement = replace(after_crash.engagement, consent=ConsentWatch(paths))
        held, pinned = after_crash.session._held, after_crash.session._pinned
        with pytest.raises(ConsentError):
            await Session(engagement, held, pinned, "cpu", "test").run()
    assert "is not sent: you took back your consent" in after_crash.events[0].text
    assert own.key.public not in {sender for sender, _ in world.server.uploads}
    assert Journal(tmp_path / "after" / "journal").unfinished == ()


async def test_a_renewal_waits_for_a_yes_that_is_being_written(https: HttpsFederation, tmp_path: Path) -> None:
    client, path = await joined(https, tmp_path), Paths.under(tmp_path).membership_file
    with rewriting(path):
        before = client.require_membership()
        renewal = asyncio.create_task(asyncio.to_thread(client._save_certificate, b"renewed"))
        await asyncio.wait({renewal}, timeout=0.3)
        before.model_copy(update={"consent": "test-task@2"}).save(path)
    await renewal
    kept = client.require_membership()
    assert (kept.certificate, kept.consent) == (b"renewed", "test-task@2")


async def test_a_yes_waits_for_a_renewal_that_is_being_written(https: HttpsFederation, tmp_path: Path) -> None:
    client, path = await joined(https, tmp_path), Paths.under(tmp_path).membership_file
    offer = await client.fetch_offer()
    with rewriting(path):
        before = client.require_membership().model_copy(update={"consent": "test-task@0"})
        yes = asyncio.create_task(asyncio.to_thread(client.agree, offer, offer.accept()))
        await asyncio.wait({yes}, timeout=0.3)
        before.model_copy(update={"certificate": b"renewed"}).save(path)
    await yes
    kept = client.require_membership()
    assert (kept.certificate, kept.consent) == (b"renewed", "test-task@1")


async def test_decisions_at_once_are_all_kept(https: HttpsFederation, tmp_path: Path) -> None:
    membership, folder = (await joined(https, tmp_path)).require_membership(), tmp_path / "many"
    together = [asyncio.to_thread(Agreements(folder).withdraw, membership, "test") for _ in range(8)]
    await asyncio.gather(*together)
    assert len(Agreements(folder).all()) == 8
