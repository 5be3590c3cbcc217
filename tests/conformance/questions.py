"""The golden vectors as questions with one right answer each, in JSON that any language reads.

A question is an object with `do` and hex inputs; the answer is an object. Nothing in a question says the answer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[2] / "protocol" / "vectors"
Fields = dict[str, Any]


_CONTEXTS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("H of parts", "hash-parts", ("digest",)),
    ("ctx0", "ctx0", ("context",)),
    ("ctx_", "ctx-j", ("context",)),
    ("ctx", "ctx", ("context",)),
    ("signature", "sign", ("public", "signed", "signature")),
)
"""How a vector's name begins → what is asked, and which of its fields are the answer."""

_KEYS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "pairwise seed": ("pairwise-seed", ("own_public", "seed", "sign")),
    "canary pad": ("canary-pad", ("seed", "sign")),
    "domain pad": ("domain-pad", ("seed", "sign")),
    "self mask": ("self-mask", ("commitment", "seed")),
    "sealed share": ("seal-share", ("sealed", "leaves")),
}


@dataclass(frozen=True)
class Question:
    """One vector: what is asked, and what must be answered."""

    name: str
    asked: Fields
    answer: Fields


_ENCODINGS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "update": ("encode", ("words", "expect")),
    "noisy update": ("encode-noisy", ("words",)),
    "packed words": ("pack", ("payload",)),
    "sum": ("decode-sum", ("ring_sum", "weight", "report", "sketch", "expect")),
}


def _load(name: str) -> list[Fields]:
    found: list[Fields] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def _derivation(name: str, do: str, vector: Fields, *answers: str) -> Question:
    asked = {key: value for key, value in vector.items() if key not in {"name", *answers}}
    answer = {key: vector[key] for key in answers if key in vector}
    return Question(f"{name}: {vector['name']}", {"do": do, **asked}, answer)


def _server(path: Path) -> Question:
    """Ask for the server's half of a recorded round: its lines without their bytes, and no outcome."""
    said: Fields = json.loads(path.read_text("utf-8"))
    own = [line for line in said["lines"] if line["from"] == "server"]
    lines = [
        {key: line[key] for key in ("at", "from", "to", "kind")} if line in own else line for line in said["lines"]
    ]
    known = {key: said[key] for key in ("server_secret", "offer", "cohort_id", "devices")}
    answer = {"documents": [line["bytes"] for line in own], "outcome": said["outcome"]}
    return Question(f"server: {path.stem}", {"do": "server", **known, "lines": lines}, answer)


def questions() -> Iterator[Question]:
    """Yield every vector that has one right answer."""
    for vector in _load("messages"):
        yield Question(
            f"message: {vector['name']}",
            {"do": "decode", "kind": vector["kind"], "bytes": vector["bytes"]},
            {"result": vector["expect"]},
        )
    for vector in _load("contexts"):
        do, answers = next((do, found) for first, do, found in _CONTEXTS if str(vector["name"]).startswith(first))
        yield _derivation("context", do, vector, *answers)
    for vector in _load("keys"):
        if vector["name"] in _KEYS:
            do, answers = _KEYS[vector["name"]]
            yield _derivation("key", do, vector, *answers)
    for vector in _load("masks"):
        yield _derivation("mask", "mask", vector, "bytes")
    for vector in _load("shamir"):
        yield _derivation("shares", "split", vector | {"members": len(vector["shares"])}, "shares")
    for vector in _load("keylog"):
        if "leaves" in vector and "root" in vector:
            yield _derivation(
                "key log", "merkle-root", {key: vector[key] for key in ("name", "leaves", "root")}, "root"
            )
    for vector in _load("encodings"):
        what, _, name = vector["name"].partition(": ")
        do, answers = _ENCODINGS[what]
        yield _derivation(what, do, vector | {"name": name}, *answers)
    for vector in _load("sealed"):
        opened = ("expect", "update", "weight", "figures") if vector["expect"] == "success" else ("expect",)
        asked = {key: value for key, value in vector.items() if key not in ("ephemeral_secret", "plain")}
        yield _derivation("sealed update", "open-sealed", asked, *opened)
    for path in sorted((FOLDER / "transcripts").glob("*.json")):
        yield _server(path)
