"""`--to ollama`: a Modelfile beside the GGUF file. Ollama speaks Go templates, so the chat template is said in one.

Ollama from 0.34.1 on makes no models of an adapter alone any more, so the file holds base and adapter merged.
"""

from fedit_client.export.tokens import Tokens
from fedit_client.export.turns import Turns
from fedit_protocol.errors import ModelError

MODELFILE = "Modelfile"


def modelfile(gguf: str, tokens: Tokens, turns: Turns, cutoff_tokens: int) -> str:
    """Return the Modelfile for a GGUF file beside it; raises ModelError M013 for text that Go would take for code."""
    lines = [
        f"FROM ./{gguf}",
        f"TEMPLATE {_quoted(_go_template(turns, tokens))}",
        *([f"SYSTEM {_quoted(turns.default_system)}"] if turns.default_system else []),
        *(f"PARAMETER stop {_quoted(stop)}" for stop in tokens.stops),
        f"PARAMETER num_ctx {max(2048, 2 * cutoff_tokens)}",
    ]
    return "\n".join(lines) + "\n"


def _go_template(turns: Turns, tokens: Tokens) -> str:
    """Where llama.cpp itself puts a begin token first, the template must not."""
    bos = next((tokens.pieces[place] for name, place in tokens.special if name == "bos"), "")
    skipped = bos if tokens.adds_bos else ""
    head = _plain("" if turns.default_system else turns.head.removeprefix(skipped))
    if turns.system:
        opening, end = turns.system
        told = f"{_plain(opening.removeprefix(skipped))}{{{{ .System }}}}{_plain(end)}"
        start = f"{{{{ if .System }}}}{told}{{{{ else }}}}{head}{{{{ end }}}}"
    else:
        start = head
    asked = f"{_plain(turns.question[0])}{{{{ .Content }}}}{_plain(turns.question[1])}"
    answered = f"{{{{ .Content }}}}{_plain(turns.answer_end)}"
    return (
        f'{start}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{asked}'
        f'{{{{ else if eq .Role "assistant" }}}}{answered}{{{{ end }}}}{{{{ end }}}}'
    )


def _plain(text: str) -> str:
    if "{{" in text or "}}" in text or '"""' in text:
        raise ModelError("the base's chat template holds braces or quotes that a Modelfile cannot carry", code="M013",
                         fix="fedit-client export --to gguf")  # fmt: skip
    return text


def _quoted(text: str) -> str:
    return f'"""{text}"""'
