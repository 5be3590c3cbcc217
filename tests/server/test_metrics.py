"""What a scrape shows: every family of the list, true figures of a round, and nothing of one device."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import client_id
from fedit_protocol.messages import Abort
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import Role
from fedit_server.admin.health import Surroundings, _tried
from fedit_server.admin.models.tokens import NewToken
from fedit_server.admin.tokens import create_token
from fedit_server.metrics import FAMILIES, Metrics, problem_name
from fedit_server.rounds.missed import missed_in

from .bases import small_task
from .conftest import Running, start
from .devices import one_hot
from .test_serving import SIZE

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def bearer(running: Running, role: Role = Role.METRICS) -> dict[str, str]:
    made = await create_token(running.parts.admin, NewToken(role=role, lifetime_s=30 * 86400))
    return {"Authorization": f"Bearer {made.secret}"}


async def scrape(running: Running) -> str:
    async with running.http.get("/metrics", headers=await bearer(running)) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return await reply.text()


def everything_said() -> Metrics:
    """Metrics in which every verb was used once."""
    metrics = Metrics()
    metrics.round_ended("t", "committed", 3.0)
    metrics.stage_ended("share_keys", 1.0, 2)
    metrics.cohort_formed("t", 3)
    metrics.aborted(ProblemType.TOO_LATE)
    metrics.uploaded(5)
    metrics.downloaded(7)
    metrics.rejected(ProblemType.MALFORMED)
    metrics.evaluated("t", "train", 1.5)
    metrics.audited("t", 0.04, 0.02)
    metrics.differed("t", 2.5)
    metrics.spent("t", 0.5)
    metrics.answered("/livez", "GET", 200, 0.1)
    metrics.lagged(0.001)
    return metrics


def test_the_registry_holds_the_families_of_the_list_and_no_other() -> None:
    text = everything_said().render().decode()
    assert set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) == set(FAMILIES)


def test_an_audit_that_corrects_nothing_leaves_no_older_correction_standing() -> None:
    metrics = everything_said()
    assert 'fedit_aggregation_error_ratio{after="correction",task="t"} 0.02' in metrics.render().decode()
    metrics.audited("t", 0.03, None)
    assert 'fedit_aggregation_error_ratio{after="average",task="t"} 0.03' in metrics.render().decode()
    assert "correction" not in re.sub("^#.*$", "", metrics.render().decode(), flags=re.MULTILINE)


def test_labels_have_few_values() -> None:
    assert problem_name(ProblemType.TOO_LATE) == "too-late"
    assert problem_name("urn:fedit:error:made-up-by-a-device") == "other"
    metrics = Metrics()
    metrics.answered("unmatched", "BREW", 405, 0.1)
    assert 'method="other"' in metrics.render().decode()


async def test_a_round_in_figures(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    around = Surroundings(tmp_path, certificate_end=lambda: clock() + timedelta(days=3), last_backup=lambda: 12.0)
    async with start(tmp_path, clock, small_task(base), around=around) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.take_part(one_hot(SIZE, i)) for i, device in enumerate(devices)))
        await devices[0].result()
        newest = await running.parts.store.tasks.newest_adapter(small_task(base).id)
        await devices[0].ask("GET", f"/v1/blobs/{newest.digest}")
        async with running.http.get("/no/such/path") as reply:
            assert reply.status == 404
        text = await scrape(running)
        found = samples(text)

        def value(name: str, **labels: str) -> float:
            return found[name, frozenset(labels.items())]

        task = small_task(base).id
        assert value("fedit_rounds_total", task=task, outcome="committed") == 1
        assert value("fedit_cohort_size", task=task) == 3
        assert value("fedit_clients_enrolled") == 3
        assert value("fedit_round_stage_duration_seconds_count", stage="masked_update") == 1
        assert value("fedit_secagg_dropouts_total", stage="masked_update") == 0
        assert value("fedit_upload_bytes_total") > 3 * SIZE
        assert value("fedit_download_bytes_total") > 4 * SIZE
        assert value("fedit_http_requests_total", route="/v1/rounds/{round_id}/join", method="POST", status="204") == 3
        assert value("fedit_http_requests_total", route="unmatched", method="GET", status="404") == 1
        assert value("fedit_certificate_expiry_timestamp_seconds") == (clock() + timedelta(days=3)).timestamp()
        assert value("fedit_last_backup_timestamp_seconds") == 12
        assert value("fedit_disk_free_bytes") > 0
        assert ("fedit_eval_loss", frozenset({("task", task), ("split", "train")})) in found
        for device in devices:
            assert client_id(device.key.public) not in text
        loss = value("fedit_eval_loss", task=task, split="train")
        assert {name for key in found for name, _ in key[1]} <= {
            "task", "outcome", "stage", "reason", "split", "after", "route", "method", "status", "le",
            "version", "protocol", "python",
        }  # fmt: skip

    async with start(tmp_path, clock, around=around) as running:  # counters begin anew, the newest figures are there
        found = samples(await scrape(running))
        assert value("fedit_eval_loss", task=task, split="train") == loss
        assert ("fedit_rounds_total", frozenset({("task", task), ("outcome", "committed")})) not in found


async def test_a_device_that_gives_up_is_counted_by_its_reason(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """Abort and dropout are each counted once, without a name; the round goes on with the others."""
    async with start(tmp_path, clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(one.offer() for one in devices)), strict=True):
            device.accept(offer)
        await asyncio.gather(*(device.step("join", one_hot(SIZE, 0)) for device in devices))
        leaver = devices[2]
        context = offer_context(read_envelope(leaver.participant_offer, Kind.OFFER).body)
        goodbye = seal(leaver.key, Kind.ABORT, context, Abort(problem=ProblemType.TOO_LATE))
        await leaver.call("POST", f"{leaver.round}/abort", goodbye)
        for device in devices[:2]:
            await device.step("shares", one_hot(SIZE, 0))
        found = samples(await scrape(running))
        assert found["fedit_secagg_aborts_total", frozenset({("reason", "too-late")})] == 1
        assert found["fedit_secagg_dropouts_total", frozenset({("stage", "share_keys")})] == 1


async def test_a_readiness_check_that_hangs_is_not_ready(clock: ManualClock) -> None:
    said = await _tried("blobs", asyncio.Event().wait, patience_s=0.01)
    assert (said.ok, said.said) == (False, "does not answer within 0.01 s")


async def test_a_refused_request_is_counted_by_its_problem(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path, clock, small_task(base)) as running:
        async with running.http.post("/v1/checkin", data=b"no message") as reply:
            assert reply.status == 400
        assert samples(await scrape(running))["fedit_rejects_total", frozenset({("reason", "malformed")})] == 1


DROPOUTS = {
    "two of five did not join": ("advertise_keys", 5, {"joined": 3}, 2),
    "one did not share": ("share_keys", 5, {"joined": 3, "shared": 2}, 1),
    "all uploaded": ("masked_update", 5, {"sharers": 3, "uploaded": 3}, 0),
    "shares that suffice are no dropouts": ("unmask", 5, {"survivors": 3, "answered": 2}, 0),
    "the second sum is not counted": ("masked_update", 5, {"sum": 2, "sharers": 3, "uploaded": 1}, 0),
    "a trusted round": ("sealed_update", 5, {"joined": 4, "uploaded": 3}, 1),
}


@pytest.mark.parametrize(("stage", "invited", "progress", "missed"), DROPOUTS.values(), ids=DROPOUTS)
def test_dropouts_by_stage(stage: str, invited: int, progress: dict[str, int], missed: int) -> None:
    assert missed_in(stage, invited, progress) == missed


@pytest.mark.parametrize("path", ["/metrics", "/readyz?verbose"])
async def test_figures_need_a_token_with_the_right(path: str, tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path, clock, small_task(base)) as running:
        statuses = []
        for headers in ({}, await bearer(running, Role.VIEWER), await bearer(running, Role.METRICS)):
            async with running.http.get(path, headers=headers) as reply:
                statuses.append(reply.status)
    assert statuses == [401, 403, 200]


async def test_readiness(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    end = clock() + timedelta(days=1)
    around = Surroundings(tmp_path, certificate_end=lambda: end)
    async with start(tmp_path, clock, small_task(base), around=around) as running:
        token = await bearer(running)

        async def checks() -> tuple[int, dict[str, bool]]:
            async with running.http.get("/readyz?verbose", headers=token) as reply:
                return reply.status, {check["name"]: check["ok"] for check in (await reply.json())["checks"]}

        good = {"serving": True, "database": True, "blobs": True, "disk": True, "certificate": True}
        assert await checks() == (200, good)
        elsewhere = running.home.blobs.rename(tmp_path / "elsewhere")
        assert await checks() == (503, good | {"blobs": False})
        elsewhere.rename(running.home.blobs)
        clock.advance(seconds=2 * 86400)
        assert await checks() == (503, good | {"certificate": False})
        async with running.http.get("/healthz") as reply:
            assert (reply.status, await reply.text()) == (503, "not ready\n")
        async with running.http.get("/livez") as reply:
            assert reply.status == 200


async def test_too_little_room_is_not_ready(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    around = Surroundings(tmp_path, least_free_bytes=10**18)
    async with (
        start(tmp_path, clock, small_task(base), around=around) as running,
        running.http.get("/readyz") as reply,
    ):
        assert reply.status == 503
