"""Everything that goes wrong around a client, each case really made: its code, its cause, and one fix that exists."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedit_client.home.lock import held_alone
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, exit_status

from .test_cli import WITHOUT_TORCH
from .test_cli_join import Joining, joining
from .trouble import (
    ROW,
    Ended,
    Scene,
    answering,
    commands_in,
    control_c,
    control_d,
    environment,
    free_port,
    hangs_up,
    hung_up,
    listening,
    missing_in,
    on_terminal,
    relaying,
    says_hello,
    small_disk,
)

__all__ = ["joining"]

Act = Callable[[Scene], Awaitable[Ended]]
LINK = "fedit://127.0.0.1:{port}/j/K7QF-2M9D-XT4B-W8HC#sha256:" + "0" * 64
INTERRUPTED = 130
CHAT = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
# Where the cure lies outside FedIT: these begin a fix of other people's commands.
ELSEWHERE = ("pip install ", "hf auth login", "unset FEDIT_", "correct or remove ")


@dataclass(frozen=True)
class Case:
    """What is done, how it must end, and what its words must contain."""

    act: Act
    code: str
    words: str
    status: int | None = None


def rows(text: str | bytes, name: str = "bad.jsonl") -> Act:
    return lambda scene: scene.run("data", "add", scene.rows(text, name))


def at_join(*words: str) -> Act:
    return lambda scene: scene.join(*words)


def refusing(path: str, error: ProtocolError, *words: str) -> Act:
    async def act(scene: Scene) -> Ended:
        if words:
            await scene.joined()
        scene.https.refuse[path] = error
        return await (scene.run(*words) if words else scene.join())

    return act


def damaged(name: str, content: str, *words: str, mode: int = 0o600) -> Act:
    async def act(scene: Scene) -> Ended:
        await scene.joined()
        path = next(iter(sorted(scene.home.glob(name))), scene.home / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_text(content)
        path.chmod(mode)
        return await scene.run(*words)

    return act


def against(serve: object, tls: bool = True) -> Act:
    async def act(scene: Scene) -> Ended:
        async with listening(serve, tls) as port:  # type: ignore[arg-type] # a callback, as written in trouble.py
            return await scene.join("--server", LINK.format(port=port))

    return act


async def unreachable(scene: Scene) -> Ended:
    return await scene.join("--server", LINK.format(port=free_port()))


async def unknown_host(scene: Scene) -> Ended:
    return await scene.join("--server", LINK.format(port=1).replace("127.0.0.1", "nowhere.invalid"))


async def intercepted(scene: Scene) -> Ended:
    async with listening(relaying(scene.https.port)) as port:
        return await scene.join("--server", scene.https.invite.replace(f":{scene.https.port}/", f":{port}/"))


async def wrong_pin(scene: Scene) -> Ended:
    return await scene.join("--server", LINK.format(port=scene.https.port))


async def no_pin(scene: Scene) -> Ended:
    return await scene.join("--server", f"https://127.0.0.1:{scene.https.port}")


async def no_code(scene: Scene) -> Ended:
    pin = scene.https.invite.partition("#")[2]
    return await scene.join("--server", f"https://127.0.0.1:{scene.https.port}", "--pin", pin)


async def joined_elsewhere(scene: Scene) -> Ended:
    await scene.joined()
    text = (scene.home / "membership.json").read_text()
    kept = json.loads(text)
    other = scene.https.federation.descriptor.model_copy(update={"federation_id": "f" * 32})
    import base64

    from fedit_protocol.encoding import encode

    kept["descriptor"] = base64.urlsafe_b64encode(encode(other)).decode()
    (scene.home / "membership.json").write_text(json.dumps(kept))
    return await scene.join()


async def held(scene: Scene) -> Ended:
    await scene.joined()
    with held_alone(scene.home / "client.lock"):
        return await scene.run("run")


def other_base(name: str, content: str | None) -> Act:
    async def act(scene: Scene) -> Ended:
        if content is None:
            (scene.joining.base / name).unlink()
        else:
            (scene.joining.base / name).write_text(content)
        return await scene.join()

    return act


async def huge(scene: Scene) -> Ended:
    scene.home.mkdir()
    (scene.home / "client.toml").write_text("[limits]\nmax_base_gib = 60000\n")
    big = scene.https.document.model_copy(update={"linear_parameters": 10**13})
    scene.https.loopback.document = big
    return await scene.join()


async def gated(scene: Scene) -> Ended:
    """A hub on loopback that wants its licence accepted."""
    body = json.dumps({"error": "Access to model org/gated is restricted"}).encode()
    status = "403 Forbidden\r\nX-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted"
    async with listening(answering(status, body, "application/json"), tls=False) as port:
        scene.monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        scene.monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        return await scene.process("join", "--data", str(scene.joining.rows), "--device", "cpu", "--model", "org/gated",
                                   "--accept", "test-task@1")  # fmt: skip


def fitting(status: str | None) -> Act:
    """`fit` of a base on a hub that answers so, or that nobody listens for."""

    async def act(scene: Scene) -> Ended:
        scene.monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        if status is None:
            scene.monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
            return await scene.process("fit", "org/base")
        async with listening(answering(status, b"{}", "application/json"), tls=False) as port:
            scene.monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
            return await scene.process("fit", "org/base")

    return act


async def full_disk(scene: Scene) -> Ended:
    with small_disk(scene.folder / "small") as place:
        return await scene.process("--home", str(place), "set", "device.threads=2")


async def small_files(scene: Scene) -> Ended:
    """A quota on the size of files."""
    scene.home.mkdir(exist_ok=True)
    return await scene.process(
        "set", "device.threads=2", limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
    )


async def no_folder(scene: Scene) -> Ended:
    (scene.folder / "file").write_text("not a folder")
    return await scene.run("--home", str(scene.folder / "file" / "home"), "set", "device.threads=2")


async def wrong_variable(scene: Scene) -> Ended:
    scene.monkeypatch.setenv("FEDIT_DEVICE__THREADS", "many")
    return await scene.run("status")


def on_question(then: Callable[[int, "subprocess.Popen[bytes]"], int]) -> Act:
    async def act(scene: Scene) -> Ended:
        await scene.joined()
        return await asyncio.to_thread(on_terminal, ["leave", "--erase"], b"[y/N]", then)

    return act


async def reader_gone(scene: Scene) -> Ended:
    """Whoever reads the output has gone: nothing to say, and nobody to say it to."""
    read, write = os.pipe()
    os.close(read)
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fedit_client", "config", "schema", stdout=write, stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )  # fmt: skip
    os.close(write)
    _, err = await done.communicate()
    return Ended(done.returncode or 0, err.decode())


NOT_ENROLLED = SecurityError(ProblemType.NOT_ENROLLED, "no such device")
CASES = {
    # files
    "a data file that is missing": Case(lambda scene: scene.run("data", "check", "absent.jsonl"), "D001", "not exist"),
    "an empty data file": Case(rows(""), "D002", "not a single row"),
    "a data file of another kind": Case(rows("x", "rows.docx"), "D003", "docx"),
    "columns that nobody knows": Case(rows('{"q":"a","z":"b"}\n'), "D004", "found q, z"),
    "columns that fit twice": Case(
        rows('{"prompt":"a","completion":"b","instruction":"c","output":"d"}\n'), "D006", "two shapes"
    ),
    "a broken line": Case(rows(ROW + '{"prompt":\n'), "D005", "line 2"),
    "another encoding": Case(rows('{"prompt":"é","completion":"b"}\n'.encode("latin-1")), "D005", "UTF-8"),
    "a number where text belongs": Case(rows(ROW + '{"prompt":7,"completion":"b"}\n'), "D007", "number"),
    "an answer that is empty": Case(rows(ROW + '{"prompt":"a","completion":" "}\n'), "D008", "empty"),
    "roles out of order": Case(
        rows(CHAT + CHAT.replace('"messages":[', '"messages":[{"role":"user","content":"z"},')), "D009", "take turns"
    ),
    "no answer at the end": Case(rows(CHAT + '{"messages":[{"role":"user","content":"a"}]}\n'), "D014", "assistant"),
    "no rows at all": Case(lambda scene: scene.run("join", "--server", scene.https.invite), "D020", "no data"),
    "settings that are not TOML": Case(damaged("client.toml", "[device\n", "status"), "C002", "not TOML"),
    "a setting that cannot be": Case(damaged("client.toml", "[device]\nthreads = 0\n", "status"), "C001", "threads"),
    "a variable that cannot be": Case(wrong_variable, "C001", "FEDIT_DEVICE__THREADS"),
    "a settings file that is missing": Case(
        lambda scene: scene.run("--config", "no.toml", "status"), "C002", "no.toml"
    ),
    "a membership that is damaged": Case(damaged("membership.json", "{", "status"), "S013", "membership"),
    "a key that others can read": Case(damaged("identity.key", "", "run", mode=0o644), "S012", "other users"),
    "a key that is none": Case(damaged("identity.key", "zz", "run"), "S013", "does not hold a key"),
    # hardware
    "no GPU where one was asked for": Case(at_join("--device", "cuda"), "H002", "no GPU can be used"),
    "no training stack": Case(
        lambda scene: scene.process("join", "--data", str(scene.joining.rows), program=WITHOUT_TORCH), "H005", "torch"
    ),
    "too little memory": Case(huge, "H003", "out of memory"),
    # model files
    "a base that is not here": Case(at_join("--model", "/nowhere"), "M001", "not on this machine"),
    "a base that differs": Case(other_base("config.json", '{"a": 1}'), "M002", "differs"),
    "a base without weights": Case(other_base("model.safetensors", None), "M001", "safetensors"),
    "a base that asks for code": Case(other_base("config.json", '{"auto_map": {"AutoModel": "m.M"}}'), "M007", "code"),
    "a base whose licence is not accepted": Case(gated, "M001", "licence"),
    "a folder that is not there, to fit": Case(
        lambda scene: scene.run("fit", "/nowhere"), "M001", "there is no folder /nowhere"
    ),
    "a base that an offline device cannot look at": Case(
        lambda scene: scene.run("fit", "org/base"), "M001", "HF_HUB_OFFLINE forbids"
    ),
    "a hub that nobody reaches": Case(fitting(None), "M001", "cannot be asked: ConnectError"),
    "a hub without the base": Case(fitting("404 No\r\nX-Error-Code: RepoNotFound"), "M001", "has no model org/base"),
    "a licence to accept, to fit": Case(fitting("403 No\r\nX-Error-Code: GatedRepo"), "M001", "licence"),
    # network
    "nothing listens": Case(unreachable, "N001", "refused"),
    "a server that hangs up": Case(against(hangs_up), "N001", "broke"),
    "an unknown host": Case(unknown_host, "N003", "nowhere.invalid"),
    "another protocol": Case(against(says_hello, tls=False), "N005", "TLS"),
    "a server that fails": Case(against(answering("500 Oops", b"<h1>oops</h1>")), "N006", "500"),
    "a page instead of a server": Case(against(answering("200 OK", b"<h1>hello</h1>")), "T001", "not the one"),
    "a captive portal": Case(against(answering("302 Found", b"")), "T010", "302"),
    "an endless answer": Case(against(answering("200 OK", b"x" * 30_000_000)), "T010", "limit"),
    "too many requests": Case(
        refusing("/v1/enroll", ProtocolError(ProblemType.RATE_LIMITED, "slow down")), "N009", "slow"
    ),
    "a server without room": Case(
        refusing("/v1/enroll", ProtocolError(ProblemType.STORE_FULL, "full")), "N010", "full"
    ),
    # server and trust
    "another server than the pinned one": Case(wrong_pin, "T001", "not the one"),
    "a connection that is opened on the way": Case(intercepted, "T002", "not to the server"),
    "a private authority without a pin": Case(no_pin, "T003", "no pin"),
    "an expired invite": Case(
        refusing("/v1/enroll", SecurityError(ProblemType.INVITE_EXPIRED, "it expired")), "T004", "expired"
    ),
    "a used invite": Case(refusing("/v1/enroll", SecurityError(ProblemType.INVITE_USED, "all used")), "T005", "used"),
    "an invite nobody made": Case(
        refusing("/v1/enroll", SecurityError(ProblemType.INVITE_REFUSED, "none")), "T006", "none"
    ),
    "a wrong clock": Case(
        refusing("/v1/enroll", SecurityError(ProblemType.CLOCK_SKEW, "9 min apart")), "T007", "9 min"
    ),
    "a device that was excluded": Case(refusing("/v1/", NOT_ENROLLED, "run"), "T008", "no such device"),
    "a link that is none": Case(at_join("--server", "clinic"), "U003", "not an invite link"),
    "plain http": Case(at_join("--server", "http://host"), "U004", "HTTPS only"),
    "no invite code": Case(no_code, "U005", "no invite code"),
    "another task": Case(at_join("--task", "other"), "K007", "no such task"),
    "a task outside the limits": Case(damaged("client.toml", "[limits]\nhidden_among = 99\n", "run"), "K001", "hide"),
    "a yes to another version": Case(at_join("--accept", "test-task@7"), "A003", "test-task@1"),
    "nobody to agree": Case(
        lambda scene: scene.run("join", "--data", str(scene.joining.rows), "--device", "cpu"), "A001", "nobody is here"
    ),
    "another federation": Case(joined_elsewhere, "J002", "already belongs"),
    "two clients on one home": Case(held, "J003", "already runs"),
    "nothing joined": Case(lambda scene: scene.run("run"), "J001", "not joined"),
    # disk
    "a full disk": Case(full_disk, "S011", "disk is full"),
    "a quota": Case(small_files, "S010", "file too large"),
    "a home that cannot be made": Case(no_folder, "S010", "not a directory"),
    # terminal
    "no terminal": Case(lambda scene: scene.run("leave", "--erase"), "U002", "nobody is here to answer"),
    "a command that is none": Case(lambda scene: scene.run("frobnicate"), "U001", "frobnicate"),
    "the end of input at a question": Case(on_question(control_d), "", "", INTERRUPTED),
    "Ctrl-C at a question": Case(on_question(control_c), "", "", INTERRUPTED),
    "a terminal that hangs up": Case(on_question(hung_up), "", "", INTERRUPTED),
    "nobody reads on": Case(reader_gone, "", "", INTERRUPTED),
}


# These try again for seconds, or start a whole program; the rest of their kind stays in the quick run.
SLOW = {
    "nothing listens",
    "a server that hangs up",
    "an unknown host",
    "another protocol",
    "a server that fails",
    "a server without room",
    "a base whose licence is not accepted",
    "a hub that nobody reaches",
    "a hub without the base",
    "a licence to accept, to fit",
    "Ctrl-C at a question",
    "the end of input at a question",
    "no training stack",
    "a full disk",
    "a quota",
    "nobody reads on",
}


@pytest.fixture
def scene(joining: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return Scene(joining, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, case in CASES.items()]
)
async def test_trouble_has_a_code_a_cause_and_a_fix_that_exists(case: Case, scene: Scene) -> None:
    ended = await case.act(scene)
    assert "Traceback" not in ended.err
    if not case.code:
        assert (ended.status, "FEDIT-X" in ended.err) == (case.status, False), ended.err
        return
    assert f"fedit-client: error: FEDIT-{case.code}: " in ended.err, ended.err
    assert ended.status == exit_status(case.code)
    assert case.words in ended.err
    fix = next((line for line in ended.err.splitlines() if line.startswith("  fix:   ")), "").removeprefix("  fix:   ")
    named = commands_in(fix)
    assert named or fix.startswith(ELSEWHERE), f"no command in {fix!r}"
    assert [missing for line in named if (missing := missing_in(line))] == []


def test_there_are_forty_cases() -> None:
    assert len(CASES) >= 40
    assert CASES.keys() >= SLOW
