"""From texts to scores. No torch here."""

import re
from collections.abc import Sequence
from typing import Final
from unicodedata import category, normalize

from fedit_protocol.errors import EvaluationError

ROUGE_CATEGORIES: Final = ("classification", "closed_qa", "information_extraction")
"""Whose answers have few right wordings, so that an overlap of words says something."""
ROUGE_TOKENS: Final = 64

_JOINERS: Final = "\u200c\u200d"
"""Written inside words (Persian, scripts of India) or left out of them."""
_SPACELESS: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"  # Thai, Lao; Burmese; Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Japanese, Chinese
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no spaces between words."""


class Words:
    """The tokenizer of ROUGE-L for any language: in ASCII the tokens of rouge_score's own, which knows a-z and 0-9.

    Lower-case Unicode words in compatibility form (NFKC), a letter with its marks; scripts without spaces between words
    in single letters.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text, in order."""
        found: list[str] = []
        in_word = alone = False
        for sign in normalize("NFKC", text).lower():
            if sign in _JOINERS:
                continue
            if category(sign).startswith("M"):
                if in_word:
                    found[-1] += sign
                continue
            is_alone = bool(_SPACELESS.match(sign))
            if not sign.isalnum():
                in_word = False
            elif in_word and not alone and not is_alone:
                found[-1] += sign
            else:
                found.append(sign)
                in_word = True
            alone = is_alone
        return found


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return each answer's ROUGE-L F1 (Lin 2004): `Words`, no stemming. Raises EvaluationError V003."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing("rouge-score", "ROUGE-L") from error
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    pairs = zip(references, answers, strict=True)
    return [float(scorer.score(reference, answer)["rougeL"].fmeasure) for reference, answer in pairs]


def missing(package: str, what: str) -> EvaluationError:
    """The error of a package of the extra `eval` that is not installed."""
    return EvaluationError(f"{what} needs the package {package}", code="V003", fix='pip install "fedit[eval]"')
