"""Rows that look as if they held a key or a person: published key formats here, persons in a process of its own."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Final

from fedit_protocol.errors import DataError

FindAll = Callable[[Iterable[str]], list[frozenset[str]]]
"""Texts → the kinds of things that each of them seems to hold."""

PACKAGE: Final = "presidio_analyzer"

# Kind → words of which a text must hold one, in lower case, and the format. Words are looked for far more quickly.
_KEYS: Final = {
    "a private key": (("private key",), r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    "an AWS key": (("akia", "asia"), r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    ),
    "a GitLab token": (("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "a Google key": (("aiza",), r"\bAIza[A-Za-z0-9_-]{35}"),
    "a Hugging Face token": (("hf_",), r"\bhf_[A-Za-z0-9]{30,}"),
    "a key of a model API": (("sk-",), r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}"),
    "a Slack token": (("xox",), r"\bxox[abpors]-[A-Za-z0-9-]{10,}"),
    "a Stripe key": (("k_live_", "k_test_"), r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    "a signed web token": (("eyj",), r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a password": (
        ("passw", "pwd", "key", "token"),
        (
            r"(?i:\b(?:password|passwd|pwd|api[_-]?key|secret[_-]?key|access[_-]?token)\b\s*[:=]\s*)"
            r"(?=[^\s\"',;]*\d)(?=[^\s\"',;]*[A-Za-z])[^\s\"',;]{8,}"
        ),
    ),
}
_FORMATS: Final = {kind: (words, re.compile(pattern)) for kind, (words, pattern) in _KEYS.items()}

MAIL: Final = "a mail address"
CARD: Final = "a card number"
ACCOUNT: Final = "a bank account"
COMPUTER: Final = "an address of a computer"
PHONE: Final = "a phone number"
MAYBE: Final = {
    MAIL: re.compile("@"),
    CARD: re.compile(r"\d[\d -]{10,}\d"),
    ACCOUNT: re.compile(r"\b[A-Z]{2}\d{2}"),
    COMPUTER: re.compile(r"\d\.\d+\.\d+\.\d|[0-9a-fA-F]{1,4}:[0-9a-fA-F]{0,4}:"),
    PHONE: re.compile(r"\+?\d[\d\s().\-/]{6,}\d"),
}
"""What a text must have for a recogniser to be asked: each of those takes its time, and their process some seconds."""


def find_keys(text: str) -> frozenset[str]:
    """Return the kinds of keys that a text seems to hold, by formats that their issuers have published."""
    lower = text.lower()
    return frozenset(
        kind
        for kind, (words, format_) in _FORMATS.items()
        if any(word in lower for word in words) and format_.search(text)
    )


def keys_in(texts: Iterable[str]) -> list[frozenset[str]]:
    """Return the kinds of keys that each text seems to hold."""
    return [find_keys(text) for text in texts]


def can_find_persons() -> bool:
    """Whether presidio is installed; looks, and imports nothing."""
    return importlib.util.find_spec(PACKAGE) is not None


def persons_in(texts: Iterable[str]) -> list[frozenset[str]]:
    """Return the kinds of personal data that each text seems to hold; needs the extra `check`, and some seconds.

    Runs `persons.py` in a process of its own. Raises DataError D036 if that fails.
    """
    given = list(texts)
    asked = {place: text for place, text in enumerate(given) if any(maybe.search(text) for maybe in MAYBE.values())}
    answers = dict(zip(asked, _ask(asked.values()), strict=True)) if asked else {}
    return [answers.get(place, frozenset()) for place in range(len(given))]


def _ask(texts: Iterable[str]) -> list[frozenset[str]]:
    # The child must find the very code that runs here, also where it was put on sys.path by hand.
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fedit_client.data.persons"],
        input="".join(json.dumps(text) + "\n" for text in texts),
        capture_output=True,
        text=True,
        encoding="ascii",
        errors="replace",
        env={**os.environ, **path},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DataError("looking for personal data failed", code="D036", where=last, fix='pip install "fedit[check]"')
    return [frozenset(json.loads(line)) for line in done.stdout.splitlines()]
