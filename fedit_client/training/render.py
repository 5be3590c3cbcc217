"""Chat templates, rendered in a process of their own: `python -m fedit_client.training.render`, see ChatTemplate.

A template comes with the base model, and its author is trusted with nothing. transformers renders it in Jinja's
immutable sandbox; around that stand a deadline that no C loop outlives, a bound on memory, and one on what comes back.
"""

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import psutil
from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

Json = dict[str, Any]

_SPARE_BYTES: Final = 512 * 1024 * 1024
_REASON: Final = 200


def bound_memory() -> None:
    """Let this process grow by half a gigabyte and no further; Windows and macOS know no such limit."""
    if sys.platform == "linux":
        import resource

        most = psutil.Process().memory_info().vms + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def answer(template: str, special: dict[str, str], request: Json) -> Json:
    """Render one conversation in each wanted view; `texts`, or `unfit` or `refused` with the reason."""
    render: Any = render_jinja_template  # its declared types leave out the special tokens
    texts: list[str] = []
    try:
        for count, is_open in request["views"]:
            (text,), _ = render(
                conversations=[request["turns"][:count]],
                chat_template=template,
                add_generation_prompt=is_open,
                **special,
            )
            if len(text) > request["most"]:
                return {"refused": f"it writes {len(text)} characters, and {request['most']} are the limit here"}
            texts.append(text)
    except TemplateError as error:
        # What a template says itself, by raise_exception, is of this very class: it does not take this conversation.
        return {"unfit" if type(error) is TemplateError else "refused": _brief(error)}
    except Exception as error:  # noqa: BLE001 - a template can end in any error that Python has
        return {"refused": _brief(error)}
    return {"texts": texts}


def serve() -> None:
    """Answer one line after the other until stdin ends; an answer that takes too long ends the process."""
    opening = json.loads(sys.stdin.readline())
    bound_memory()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        _tell({"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            # A thread of C code: it needs no turn of the interpreter, and outlives a parent that was killed.
            faulthandler.dump_traceback_later(request["limit_s"], exit=True, file=nowhere)
            told = answer(opening["template"], opening["special"], request)
            faulthandler.cancel_dump_traceback_later()
            _tell(told)


def _tell(message: Json) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _brief(error: Exception) -> str:
    words = "".join(symbol for symbol in str(error) if symbol.isprintable())
    return f"{type(error).__name__}: {words[:_REASON]}"


if __name__ == "__main__":
    serve()
