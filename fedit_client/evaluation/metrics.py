"""From texts to scores. No torch here."""

from collections.abc import Sequence
from typing import Final

from fedit_protocol.errors import EvaluationError

ROUGE_CATEGORIES: Final = ("classification", "closed_qa", "information_extraction")
"""Whose answers have few right wordings, so that an overlap of words says something."""
ROUGE_TOKENS: Final = 64


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return each answer's ROUGE-L F1 (Lin 2004): lower-case words, no stemming. Raises EvaluationError V003."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing("rouge-score", "ROUGE-L") from error
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(references, answers, strict=True)
    return [float(scorer.score(reference, answer)["rougeL"].fmeasure) for reference, answer in pairs]


def missing(package: str, what: str) -> EvaluationError:
    """The error of a package of the extra `eval` that is not installed."""
    return EvaluationError(f"{what} needs the package {package}", code="V003", fix='pip install "fedit[eval]"')
