"""ROUGE-L in any script: what counts as a word, and that English scores are those of the published tokenizer."""

import json
from itertools import islice
from pathlib import Path
from unicodedata import normalize

import pytest

from fedit_client.evaluation.metrics import Words, rouge_l

TOKENS: dict[str, tuple[str, list[str]]] = {
    "English": ("Don't_stop: 3.5 Times!", ["don", "t", "stop", "3", "5", "times"]),
    "French": ("L'été à Nîmes", ["l", "été", "à", "nîmes"]),
    "Russian": ("Привет, МИР!", ["привет", "мир"]),
    "Greek": ("ΛΌΓΟΣ", ["λόγος"]),
    "Arabic": ("مرحبا بالعالم؟", ["مرحبا", "بالعالم"]),
    "Persian, with and without a joiner": ("می\u200cروم میروم", ["میروم", "میروم"]),
    "Hindi, vowel signs inside": ("हिन्दी में।", ["हिन्दी", "में"]),
    "Korean": ("안녕 세상", ["안녕", "세상"]),
    "Chinese": ("北京\uff0c2008年", ["北", "京", "2008", "年"]),
    "Chinese and Latin": ("用GPT模型", ["用", "gpt", "模", "型"]),
    "Chinese beyond the first plane": ("𠀀𠀁", ["𠀀", "𠀁"]),
    "Japanese": ("東京タワーが", ["東", "京", "タ", "ワ", "ー", "が"]),
    "Thai": ("ที่นี่", ["ที่", "นี่"]),
    "Lao": ("ສະບາຍ", ["ສ", "ະ", "ບ", "າ", "ຍ"]),
    "Khmer": ("ភាសា", ["ភា", "សា"]),
    "Burmese": ("မြန်မာ", ["မြ", "န်", "မာ"]),
    "full width": ("\uff21\uff22\u3000\uff11\uff12", ["ab", "12"]),
    "a mark without a letter": ("\u0301 a - \u0301b", ["a", "b"]),
    "nothing": (" … 🙂 \n", []),
}


@pytest.mark.parametrize(("text", "tokens"), TOKENS.values(), ids=TOKENS)
def test_a_text_is_split_as_its_script_is(text: str, tokens: list[str]) -> None:
    assert Words().tokenize(text) == tokens


@pytest.mark.parametrize("text", ["é à ñ", "हिन्दी", "ปาก กำ", "안녕", "ガ"])
def test_composed_and_decomposed_letters_are_the_same(text: str) -> None:
    assert Words().tokenize(normalize("NFD", text)) == Words().tokenize(normalize("NFC", text)) != []


@pytest.mark.parametrize("text", [text for text, tokens in TOKENS.values() if tokens], ids=lambda text: text[:6])
def test_a_perfect_answer_scores_1_and_another_0(text: str) -> None:
    pytest.importorskip("rouge_score")
    assert rouge_l([text, "zzz"], [text, text]) == [1.0, 0.0]


def test_half_of_the_words_score_half() -> None:
    pytest.importorskip("rouge_score")
    assert rouge_l(["привет море", "北海"], ["привет мир", "北京"]) == [0.5, 0.5]


def test_english_scores_are_those_of_the_published_tokenizer(test_data: Path) -> None:
    scorers = pytest.importorskip("rouge_score.rouge_scorer")
    tokenizers = pytest.importorskip("rouge_score.tokenizers")
    with (test_data / "dolly15k.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, 1500)]
    texts = [text for row in rows if (text := row["response"]).isascii()]
    contexts = [text for row in rows if (text := row["context"] or row["instruction"]).isascii()]
    assert len(texts) > 1000
    published, own = tokenizers.DefaultTokenizer(use_stemmer=False), Words()
    every_sign = "".join(map(chr, range(128)))
    assert all(own.tokenize(text) == published.tokenize(text) for text in [*texts, *contexts, every_sign])
    answers, references = texts[:300], [text[:400] for text in texts[1:301]]
    scorer = scorers.RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(references, answers, strict=True)
    assert rouge_l(answers, references) == [scorer.score(one, other)["rougeL"].fmeasure for one, other in pairs]
