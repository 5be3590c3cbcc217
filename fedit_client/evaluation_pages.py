"""The help pages of the error codes of evaluation and judge; `help_pages.py` shows them."""

from typing import Final

CODES: Final[dict[str, str]] = {
    "V001": "A file that should hold results of evaluations does not: one JSON object a line, as "
    "fedit-client eval models --out FILE writes them.",
    "V002": "Losses can be compared only where they were measured on the same rows, cut into the same tokens. Measure "
    "both models again with the same --data, base, --template and --cutoff-tokens.",
    "V003": 'Judges, ROUGE-L, lm-eval tasks and plots need packages of their own: pip install "fedit[eval]"',
    "V004": "No model of the results has this name; the message lists those that are there.",
    "V020": "A line of the file is no pair of answers with a label of people. Known are the records of LLMBar (input, "
    "output_1, output_2, label, and perhaps judges) and of FairEval (question, answer_1, answer_2, human_label).",
    "V021": "The file holds no prompt of the mode that was asked for: FastChat's are for pairwise, Vicuna's for score. "
    "Without --prompts FedIT's own are used.",
}
