"""Which of two values of a setting protects its owner more: what a file that merely lies around may not change."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic.fields import FieldInfo

GUARDED: Final = ("limits", "polite")
"""Sections that only their owner may loosen: by a flag, the environment, client.toml, or a file named on purpose."""

HARMLESS: Final = frozenset({"device.threads", "device.max_tokens", "network.max_wait_s", "network.enroll_wait_s"})
"""Settings that a file which merely lies around may state: they start no program, and choose no server or key."""

_MORE_IS_STRICTER: Final = frozenset(
    {"min_cohort", "hidden_among", "corrupt_fraction", "min_clip_norm", "min_cert_age_h"}
)
_ZERO_IS_ANY: Final = frozenset({"max_rounds_per_day", "max_epsilon"})
EMPTY_IS_ANY: Final = frozenset({"base_digests", "target_modules"})


def is_looser_limit(name: str, before: Any, after: Any) -> bool:
    """Say whether with the new value of a limit some task may pass that was refused before."""
    return _reach(name, before) < _reach(name, after) or (
        isinstance(before, tuple) and not _covers(name, before, after)
    )


def may_lie_around(key: str) -> bool:
    """Say whether a file that its owner did not name may say anything about a dotted setting; others are left out."""
    return key in HARMLESS or key.partition(".")[0] in GUARDED


def may_loosen(key: str, before: Any, after: Any, field: FieldInfo | None) -> bool:
    """Say whether a dotted setting protects less than before, or might: a guarded key without a known order counts.

    The order of a setting stands with it, as `json_schema_extra={"stricter": …}`: "higher", "lower" (None is loosest),
    or the list of its values from the loosest to the strictest.
    """
    section, _, name = key.partition(".")
    if section not in GUARDED or before == after:
        return False
    if section == "limits":
        return is_looser_limit(name, before, after)
    extra = field.json_schema_extra if field is not None else None
    order = extra.get("stricter") if isinstance(extra, Mapping) else None
    if isinstance(order, list):
        return before not in order or after not in order or order.index(after) < order.index(before)
    if order not in {"higher", "lower"} or isinstance(before, str) or isinstance(after, str):
        return True
    if before is None or after is None:
        return after is None
    return bool(after < before if order == "higher" else after > before)


def _reach(name: str, value: Any) -> float:
    """How much a number lets pass: the larger, the looser. Lists are compared by what is in them."""
    if isinstance(value, tuple):
        return 0.0
    if name in _ZERO_IS_ANY and value == 0:
        return float("inf")
    return -float(value) if name in _MORE_IS_STRICTER else float(value)


def _covers(name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Whether everything that is allowed after was allowed before."""
    if name in EMPTY_IS_ANY and not before:
        return True
    if name in EMPTY_IS_ANY and not after:
        return False
    return set(after) <= set(before)
