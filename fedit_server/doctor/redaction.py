"""Takes names, addresses, keys, codes and paths out of texts that somebody else may read."""

import getpass
import ipaddress
import platform
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_PATTERNS: Final = (
    (re.compile(r"fedit://\S+"), "<invite>"),
    (re.compile(r"\bfedit_[A-Za-z0-9_-]{20,}"), "<token>"),
    (re.compile(r"\b(?:[0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}\b"), "<code>"),
    (re.compile(r"(?:https?|postgresql|s3)://[^\s'\"<>]+"), "<address>"),
    (re.compile(r"unix:[^\s'\"<>]+"), "<address>"),
    (re.compile(r"\b[0-9a-fA-F]{24,}\b"), "<digits>"),
    (re.compile(r"-----BEGIN[^-]*-----.*?-----END[^-]*-----", re.DOTALL), "<pem>"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"), "<mail>"),
    (re.compile(r"(?<![\d.])(?!0\.0\.0\.0|127\.0\.0\.1)\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?(?!\.?\d)"), "<ip>"),
    (re.compile(r"(?<![\w./-])[A-Za-z0-9][\w-]*(?:\.[\w-]+)*\.(?!py:)[A-Za-z][\w-]*:\d{1,5}(?![\w.])"), "<address>"),
)
_MAYBE_IPV6: Final = re.compile(r"(?<![\w:.])(?=[^:\s]*:[^:\s]*:)[0-9A-Fa-f:.]{2,45}(?!\w)")
_PATH: Final = re.compile(r"(?<![\w<])(?:~?/|<home>/)[^\s'\",;()<>\[\]]+")
_KEPT_BELOW: Final = ("/fedit_server/", "/fedit_protocol/", "/site-packages/", "/lib/python")


class Redactor:
    """Knows what must not appear, and what stands in for it."""

    def __init__(self, words: Iterable[tuple[str, str]]) -> None:
        known = sorted({(word, put) for word, put in words if len(word) > 1}, key=lambda pair: -len(pair[0]))
        self._words = [(re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"), put) for word, put in known]

    @classmethod
    def of_machine(cls, words: Iterable[tuple[str, str]]) -> "Redactor":
        """Add what is known of this machine: its name, its user, the user's home."""
        host, user = socket.gethostname(), ""
        with suppress(KeyError, OSError):
            user = getpass.getuser()
        own = [(host, "<host>"), (host.partition(".")[0], "<host>"), (platform.node(), "<host>"), (user, "<user>")]
        return cls([*words, *own, (str(Path.home()), "<home>")])

    def text(self, text: str) -> str:
        """Return a text without them."""
        for pattern, instead in self._words:
            text = pattern.sub(instead, text)
        text = _MAYBE_IPV6.sub(_short_ip, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return _PATH.sub(_short_path, text)


def _short_ip(found: re.Match[str]) -> str:
    text = found[0].rstrip(":.") or found[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return found[0]
    return found[0] if address.is_loopback or address.is_unspecified else "<ip>" + found[0].removeprefix(text)


def _short_path(found: re.Match[str]) -> str:
    """A path of ours keeps its end, which names the code; any other one is private."""
    for part in _KEPT_BELOW:
        if part in found[0]:
            return "…" + found[0][found[0].rindex(part) :]
    return "<path>"
