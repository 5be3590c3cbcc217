"""The help pages of the error codes of evaluation and judge; `help_pages.py` shows them."""

from typing import Final

CODES: Final[dict[str, str]] = {
    "V001": "A file that should hold results does not: one JSON object a line, as eval models --out, eval tasks --out "
    "and judge run or judge validate --out write them, in files of their own or in one. A judge's file has a result "
    "once its run has ended.",
    "V002": "Losses can be compared only where they were measured on the same rows, cut into the same tokens. Measure "
    "both models again with the same --data, base, --template and --cutoff-tokens.",
    "V003": 'Judges, ROUGE-L, lm-eval tasks and plots need packages of their own: pip install "fedit[eval]"',
    "V004": "No model of the results has this name; the message lists those that are there.",
    "V005": "lm-eval does not know the task, or could not run it: its rows come from the hub (HF_HUB_OFFLINE forbids "
    "that), and some tasks need packages of their own. lm-eval ls tasks lists what there is.",
    "V010": "What a judge is asked holds your questions and answers, so it travels encrypted or not at all: https://, "
    "or http:// where the judge runs on this machine, such as Ollama, vLLM or llama-server. A key belongs into "
    "OPENAI_API_KEY, never into the address.",
    "V011": "The judge's key is read from the environment, OPENAI_API_KEY, and from nowhere else.",
    "V012": "The judge's server takes the key, the model's name or the address for wrong; its own words stand in the "
    "message. Nothing that was judged before is lost.",
    "V013": "The judge's server is overloaded, limits how much may be asked, or is away, or a proxy before it serves "
    "pages of its own; several tries and the waits that it asked for did not help. Every reply so far is in the file "
    "of --out, so the same command goes on later and asks, and pays for, only what is missing.",
    "V014": "Replies come back without text, one after the other, so the address is probably no judge's. It is what "
    "stands before /chat/completions, and usually ends with /v1. If it is right, the same command later goes on: what "
    "nobody has paid for is not kept.",
    "V015": "The file of --out holds something else than a judge's replies. Name another one; nothing was overwritten.",
    "V016": "Answers are JSON lines with question_id, question, model and answer, and perhaps category and reference, "
    "as fedit-client eval models --answers FILE writes them; two models must have answered the same questions.",
    "V017": "You did not agree that questions and answers go to the judge's owner. A judge on this machine needs no "
    "yes: --url http://127.0.0.1:11434/v1",
    "V020": "A line of the file is no pair of answers with a label of people: 1, 2 or tie. Known are the records of "
    "LLMBar (input, output_1, output_2, label, and perhaps subset and judges, a name with one verdict for each order) "
    "and of FairEval (question, answer_1, answer_2, human_label, and perhaps NAME_scores, two numbers).",
    "V021": "The file holds no prompt of the mode that was asked for. FastChat's are for pairwise, and in the mode "
    "score for answers that are graded by themselves; Vicuna's are for score. Without --prompts FedIT's own are used.",
}
