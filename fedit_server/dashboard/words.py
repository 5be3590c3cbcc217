"""Figures and times in words, for templates; every one takes None and says that nothing is known."""

from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

NOTHING: Final = Markup('<span class="quiet" title="not known">–</span>')
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")

STAGES: Final = {
    "advertise_keys": "Joining",
    "share_keys": "Sharing keys",
    "acknowledge": "Confirming shares",
    "masked_update": "Training and upload",
    "confirm": "Signing the survivors",
    "unmask": "Unmasking",
    "sum": "Summing",
    "second_input": "Preparing the second sum",
    "accept": "Joining",
    "sealed_update": "Training and upload",
    "open": "Opening and averaging",
    "done": "Done",
    "failed": "Failed",
}
"""Stage → what happens in it, as people say it."""

_SIGNS: Final = {
    "active": ("●", "good"),
    "committed": ("✓", "good"),
    "past": ("✓", "good"),
    "ready": ("●", "good"),
    "open": ("▶", "accent"),
    "now": ("▶", "accent"),
    "draft": ("○", "quiet"),
    "ahead": ("○", "quiet"),
    "paused": ("‖", "rest"),
    "held": ("‖", "rest"),
    "pending": ("‖", "rest"),
    "failed": ("✕", "bad"),
    "blocked": ("✕", "bad"),
    "revoked": ("✕", "bad"),
    "expired": ("○", "quiet"),
    "used": ("○", "quiet"),
    "left": ("○", "quiet"),
    "finished": ("■", "quiet"),
    "archived": ("■", "quiet"),
}
"""State → a sign and a colour; the word always stands beside them."""


def state(word: object) -> Markup:
    """Return a state as a chip: sign, word, colour."""
    text = str(word)
    sign, colour = _SIGNS.get(text, ("○", "quiet"))
    return Markup('<span class="chip {}"><span aria-hidden="true">{}</span> {}</span>').format(colour, sign, text)


def stage(name: str) -> str:
    """Return what happens in a stage."""
    return STAGES.get(name, name.replace("_", " "))


def when(seconds: float | None) -> Markup:
    """Return a moment in UTC, to the minute, with the exact one for machines."""
    if seconds is None:
        return NOTHING
    moment = datetime.fromtimestamp(seconds, UTC)
    shown = f"{moment.day} {moment:%b %Y, %H:%M}"
    return Markup('<time datetime="{}">{}</time>').format(f"{moment:%Y-%m-%dT%H:%M:%SZ}", shown)


def span(seconds: float | None) -> Markup | str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return NOTHING
    whole = max(0, round(seconds))
    for name, unit, next_name, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {next_name}" if rest else "")
    return f"{whole} s"


def left(deadline: float | None, now_s: float) -> str:
    """Return how long there is until a deadline, in steps that do not make a page flicker."""
    if deadline is None:
        return ""
    seconds = deadline - now_s
    if seconds <= 0:
        return "time is up"
    step = 1 if seconds < 10 else 10 if seconds < 120 else 60
    return f"{span(-(-seconds // step) * step)} left"


def size(count: float | None) -> Markup | str:
    """Return bytes in decimal units, three digits."""
    if count is None:
        return NOTHING
    value, place = float(count), 0
    while value >= 999.5 and place < len(_UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.{0 if place == 0 or value >= 100 else 1}f} {_UNITS[place]}"


def count(number: float | None) -> Markup | str:
    """Return a whole number with separators."""
    return NOTHING if number is None else f"{number:,.0f}"


def loss(value: float | None) -> Markup | str:
    """Return a loss in nats with three decimals."""
    return NOTHING if value is None else f"{value:.3f}"


def signed(value: float | None) -> Markup | str:
    """Return a gain with its sign and three decimals."""
    return NOTHING if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def short(digest: str) -> Markup:
    """Return the beginning of a digest or an id; the whole of it for who points at it, and for copying."""
    text = digest.removeprefix("sha256:")
    return Markup('<code title="{}">{}</code>').format(digest, text[:12]) if text else NOTHING
