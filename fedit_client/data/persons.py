"""Texts on stdin → the kinds of personal data in each on stdout, by presidio's pattern recognisers.

    python -m fedit_client.data.persons        JSON lines in, JSON lines out; `sensitive.persons_in` starts it

A process of its own, because presidio imports spaCy, and both import torch where they find it. Neither is needed for
patterns: no language model is loaded, and nothing is fetched (decision 0036).
"""

import json
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from fedit_client.data.sensitive import ACCOUNT, CARD, COMPUTER, MAIL, MAYBE, PHONE

Find = Callable[[str], bool]

_LEAST_PHONE_DIGITS: Final = 9
_STRICT: Final = 2  # digits grouped as the country groups them; laxer, and every year and page number is a phone
_NOBODYS: Final = ("0.0.0.0", "127.", "10.", "192.168.", "169.254.", "255.", "::")  # noqa: S104 - compared, never bound


def recognisers() -> dict[str, Find]:
    """Return what finds each kind; imports presidio, with torch hidden from it."""
    hidden: dict[str, Any] = dict.fromkeys(("torch", "transformers"))
    sys.modules.update(hidden)  # None means: not to be had
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
    )

    class OfflineEmailRecognizer(EmailRecognizer):
        """Mail addresses by their pattern alone: the library's own check fetches a list of domains."""

        def validate_result(self, pattern_text: str) -> bool | None:
            """Keep the pattern's word."""
            return None

    return {
        MAIL: _by(OfflineEmailRecognizer(), MAYBE[MAIL]),
        CARD: _by(CreditCardRecognizer(), MAYBE[CARD]),
        ACCOUNT: _by(IbanRecognizer(), MAYBE[ACCOUNT]),
        COMPUTER: _by(IpRecognizer(), MAYBE[COMPUTER], _is_somebodys),
        PHONE: _by(PhoneRecognizer(leniency=_STRICT), MAYBE[PHONE], _is_phone),
    }


def _by(recogniser: Any, maybe: re.Pattern[str], keep: Find = lambda _: True) -> Find:
    wanted = recogniser.supported_entities

    def find(text: str) -> bool:
        if maybe.search(text) is None:
            return False
        found = recogniser.analyze(text, entities=wanted, nlp_artifacts=None)
        return any(keep(text[result.start : result.end]) for result in found)

    return find


def _is_somebodys(found: str) -> bool:
    return not found.startswith(_NOBODYS)


def _is_phone(text: str) -> bool:
    return sum(symbol.isdigit() for symbol in text) >= _LEAST_PHONE_DIGITS


def serve() -> None:
    """Answer every line of stdin with one line."""
    finders = recognisers()
    for line in sys.stdin:
        text = json.loads(line)
        sys.stdout.write(json.dumps([kind for kind, find in finders.items() if find(text)]) + "\n")


if __name__ == "__main__":
    serve()
