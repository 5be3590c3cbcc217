"""What every page model is, and the words that several of them share."""

from typing import Final

from pydantic import BaseModel, ConfigDict

PER_PAGE: Final = 50
"""Rows of a list on one page."""

MOST_POINTS: Final = 500
"""Points of a curve, whatever the history."""


class View(BaseModel):
    """A frozen part of a page. Times are seconds since 1970, sizes bytes, losses nats per token."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(View):
    """One line of a list of facts."""

    name: str
    value: str
    note: str = ""
