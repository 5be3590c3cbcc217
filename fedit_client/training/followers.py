"""The further processes of a run that is shared: started by the leading worker, told each step, ended with it.

They are workers like the leader, and get the same request through a pipe: rows never go to disk. They make a step when
the leader says so, and not before: while there is a pause nobody computes, and nobody spins.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedit_client.hardware.device import DevicePlan
from fedit_client.training.channel import Channel, Json
from fedit_client.training.checkpoint import CheckpointFile
from fedit_client.training.group import Group, joined
from fedit_client.training.run import Keeper, Run, State

_LAST_WORDS_S: Final = 5.0
_STEP: Final = b'{"kind": "step"}\n'


class Followers:
    """The leader's hold on them."""

    def __init__(self, channel: Channel, requests: Sequence[Json]) -> None:
        """Start one process for each request."""
        self._channel, self._over = channel, threading.Event()
        self._watches: list[threading.Thread] = []
        self._processes = [self._start(request) for request in requests]

    def step(self) -> None:
        """Let them make the next step; one that has ended is told by its own watch."""
        for process in self._processes:
            self._write(process, _STEP)

    def hear_out(self) -> None:
        """Give a follower that has ended the time to say why, in place of the broken connection that is seen here."""
        for watch in self._watches:
            watch.join(_LAST_WORDS_S)

    def stop(self) -> None:
        """Kill those that still run; the run is over."""
        self._over.set()
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, request: Json) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedit_client.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        watch = threading.Thread(target=self._watch, args=(process,), daemon=True)
        watch.start()
        self._watches.append(watch)
        self._write(process, json.dumps(request).encode() + b"\n")
        return process

    def _write(self, process: "subprocess.Popen[bytes]", line: bytes) -> None:
        if process.stdin is None:
            raise RuntimeError("a follower is started with pipes")
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            pass

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """A follower that ends before its time ends the whole run, with its own words: nobody waits for it in vain."""
        for line in process.stdout or ():
            told = json.loads(line)
            if told["kind"] == "error":
                self._channel.send(**told)
                os._exit(1)
        status = process.wait()
        if self._over.is_set() or status == 0:
            return
        sys.stderr.write(f"a process that shares the training ended with status {status}\n")
        sys.stderr.flush()
        os._exit(1)


class LeadingKeeper:
    """The leader's: what the worker's own keeper does, then the word to the others."""

    def __init__(self, keeper: Keeper, followers: Followers) -> None:
        """Wrap the keeper that keeps and pauses."""
        self._keeper, self._followers = keeper, followers

    def saved(self, binding: str) -> State | None:
        """Return what was kept of this run."""
        return self._keeper.saved(binding)

    def between_steps(self, run: Run) -> float:
        """Keep and wait as needed, then let everybody go on."""
        seconds = self._keeper.between_steps(run)
        self._followers.step()
        return seconds


class FollowingKeeper:
    """A follower's: it begins where the leader begins, and waits for its word before each step."""

    def __init__(self, channel: Channel, file: CheckpointFile | None) -> None:
        """Take the leader's lines from the channel; the file is only read."""
        self._channel, self._file = channel, file

    def saved(self, binding: str) -> State | None:
        """Return what the leader begins from."""
        return self._file.load(binding) if self._file else None

    def between_steps(self, run: Run) -> float:
        """Wait for the leader."""
        self._channel.receive()
        return 0.0


@contextmanager
def leading(channel: Channel, message: Json, plan: DevicePlan, keeper: Keeper) -> Iterator[tuple[Group, Keeper]]:
    """Start the processes that the plan names besides this one, and meet them; alone, there is nothing to do."""
    if not plan.others:
        yield Group(), keeper
        return
    size = 1 + len(plan.others)
    with tempfile.TemporaryDirectory(prefix="fedit-meeting-") as folder:  # 0700
        meeting = Path(folder) / "meeting"
        requests = [
            {**message, "plan": {**message["plan"], "device": device}, "share": share, "meeting": str(meeting)}
            for share, device in enumerate(plan.others, start=1)
        ]
        followers = Followers(channel, requests)
        try:
            with joined(meeting, 0, size, plan.device) as group:
                yield group, LeadingKeeper(keeper, followers)
        except RuntimeError:
            followers.hear_out()
            raise
        finally:
            followers.stop()


@contextmanager
def following(
    channel: Channel, message: Json, plan: DevicePlan, file: CheckpointFile | None
) -> Iterator[tuple[Group, Keeper]]:
    """Meet the others as the share that the request names."""
    with joined(Path(message["meeting"]), message["share"], 1 + len(plan.others), plan.device) as group:
        yield group, FollowingKeeper(channel, file)
