"""Ask an implementation of FedIT's protocol what it makes of the golden vectors, or a running server of SPEC's rules.

python -m tests.conformance vectors [--answerer COMMAND]    COMMAND answers JSON questions line by line
python -m tests.conformance live https://host:port          a server, as a stranger sees it
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .live import RULES, LiveServer
from .questions import Question, questions

ROOT = Path(__file__).resolve().parents[2]
OURS = f"{shlex.quote(sys.executable)} -m tests.conformance.ours"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two, print every failure, return 1 if there was one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    vectors = commands.add_parser("vectors", help="the golden vectors in protocol/vectors")
    vectors.add_argument("--answerer", default=OURS, help="the program to ask; ours if none is named")
    commands.add_parser("live", help="a running server").add_argument("url")
    options = parser.parse_args(arguments)
    asked = list(questions())
    failures = check_vectors(options.answerer, asked) if options.command == "vectors" else check_live(options.url)
    for failure in failures:
        print(f"FAIL {failure}")
    total = len(asked) if options.command == "vectors" else len(RULES)
    print(f"{total - len(failures)} of {total} hold")
    return 1 if failures else 0


def check_vectors(answerer: str, asked: Sequence[Question]) -> list[str]:
    """Return what the answerer got wrong."""
    lines = "".join(json.dumps(question.asked) + "\n" for question in asked)
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH", ""), str(ROOT))))
    environment = os.environ | {"PYTHONPATH": path}  # so that ours is found also where Python's path is kept safe
    command = shlex.split(answerer)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, env=environment)
    answers = done.stdout.splitlines()
    wrong = []
    for place, question in enumerate(asked):
        found = json.loads(answers[place]) if place < len(answers) else None
        if found != question.answer:
            wrong.append(f"{question.name}: {json.dumps(found)[:200]}, not {json.dumps(question.answer)[:200]}")
    if done.returncode:
        wrong.append(f"the answerer ended with {done.returncode}: {done.stderr[-500:]}")
    return wrong


def check_live(url: str) -> list[str]:
    """Return which rules the server breaks."""
    server = LiveServer(url)
    return [f"{rule}: {wrong}" for rule, check in RULES.items() if (wrong := _told(check, server))]


def _told(check: Callable[[LiveServer], str], server: LiveServer) -> str:
    try:
        return check(server)
    except Exception as error:  # noqa: BLE001 - whatever a server under test provokes is a finding about it
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
