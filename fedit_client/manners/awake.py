"""Keeping a machine from falling asleep while it trains (`polite.keep_awake`), through wakepy."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fedit_protocol.errors import ConfigError

Awake = Callable[[], AbstractContextManager[None]]


def awake_if(wanted: bool) -> Awake:
    """Return what to hold while training; raises ConfigError C007 if it is wanted and the library is missing."""
    if not wanted:
        return nullcontext
    if importlib.util.find_spec("wakepy") is None:
        raise ConfigError("polite.keep_awake needs the package wakepy, which is not installed", code="C007",
                          where="polite.keep_awake", fix='pip install "fedit[awake]"')  # fmt: skip
    return _kept_awake


@contextmanager
def _kept_awake() -> Iterator[None]:
    """Ask the system not to sleep while the block runs; the screen may go dark. A system that refuses is no error."""
    wakepy: Any = importlib.import_module("wakepy")
    with wakepy.keep.running(on_fail="pass"):
        yield
