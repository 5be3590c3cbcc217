"""Templates: everything is escaped, nothing is guessed, an unknown name is an error."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedit_server.dashboard import words

STATIC: Final = {
    "console.css": "text/css",
    "charts.js": "text/javascript",
    "login.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "vendor/htmx-2.0.11.min.js": "text/javascript",
    "vendor/htmx-ext-sse-2.2.4.min.js": "text/javascript",
    "vendor/uPlot-1.6.32.iife.min.js": "text/javascript",
    "vendor/uPlot-1.6.32.min.css": "text/css",
}
"""Every file that a page may ask for, with its type."""

_FILTERS: Final = ("count", "left", "loss", "short", "signed", "size", "span", "stage", "state", "when")


@cache
def static_file(name: str) -> tuple[bytes, str]:
    """Return a file of STATIC and the beginning of its digest."""
    content = files("fedit_server.dashboard").joinpath("static", *name.split("/")).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def _address(name: str) -> str:
    """The address of a static file; it changes with the file, so that browsers may keep it for good."""
    return f"/static/{name}?{static_file(name)[1]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fedit_server.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update({name: getattr(words, name) for name in _FILTERS})
    environment.globals["static"] = _address
    return environment


def render(template: str, **values: Any) -> str:
    """Return a drawn template."""
    return _environment().get_template(template).render(**values)
