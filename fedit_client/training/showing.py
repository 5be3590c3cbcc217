"""Rows → their tokens, for a look: `python -m fedit_client.training.showing`, one request on stdin, see `preview`.

Only the tokenizer is loaded, and torch is hidden from its library, which would spend many seconds on importing it.
"""

import json
import sys
from typing import Any

Json = dict[str, Any]


def hide_torch() -> None:
    """Let the tokenizer's library find no torch: it then loads what it needs and nothing else."""
    hidden: dict[str, Any] = {"torch": None}
    sys.modules.update(hidden)  # None means: not to be had


def answer(request: Json) -> Json:
    """Return `sizes`, three numbers a row (tokens, trained ones, 1 if the limit leaves none), and `shown` rows.

    A shown row is a list of stretches: text, and whether it is trained on. A row that the template does not take has
    no size, and stands in `refused` with code and reason.
    """
    from pathlib import Path

    from fedit_client.data import Record
    from fedit_client.training.tokenize import uncut
    from fedit_client.training.tokenizer import load_tokenizer
    from fedit_protocol.errors import DataError
    from fedit_protocol.task import PromptSpec

    tokenizer = load_tokenizer(Path(request["base"]))
    spec, wanted = PromptSpec.model_validate(request["prompt"]), set(request["shown"])
    limit = spec.cutoff_tokens
    sizes: list[list[int]] = []
    shown: dict[int, list[list[Any]]] = {}
    refused: list[list[Any]] = []
    records = [Record.from_json(record) for record in request["records"]]
    for place, example in enumerate(uncut(records, tokenizer, spec)):
        if isinstance(example, DataError):
            sizes.append([0, 0, 0])
            refused.append([place, example.code, str(example)])
            shown[place] = []
            continue
        # The first token has nothing before it to be predicted from.
        left = example.loss_mask[1:limit]
        sizes.append([len(example.ids), int(example.loss_mask.sum()), int(not left.any())])
        if place in wanted:
            shown[place] = _stretches(example.ids.tolist(), example.loss_mask.tolist(), limit, tokenizer)
    return {"sizes": sizes, "shown": [shown[place] for place in sorted(wanted)], "refused": refused}


def _stretches(ids: list[int], mask: list[int], limit: int, tokenizer: Any) -> list[list[Any]]:
    """Join neighbours of one kind, so that a letter of several tokens stays whole: given, trained or cut."""
    kinds = ["cut" if place >= limit else "trained" if trained else "given" for place, trained in enumerate(mask)]
    stretches: list[list[Any]] = []
    begin = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or kinds[place] != kinds[begin]:
            text = tokenizer.decode(ids[begin:place], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            stretches.append([text, kinds[begin]])
            begin = place
    return stretches


def main() -> None:
    """Answer the one request; what FedIT has a code for is told as such."""
    from fedit_protocol.errors import FeditError

    hide_torch()
    try:
        told = answer(json.load(sys.stdin))
    except FeditError as error:
        told = {"error": [type(error).__name__, str(error), error.code, error.where, error.fix]}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
