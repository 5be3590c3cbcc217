"""What the methods keep of what the devices learned, in how many bytes: the figures of every part, one after the other.

A part is a module beside this one, `methods_NAME.py`, whose `figures(folder)` returns key → value; the folder is shared
by all parts of a run, so that what one has trained another may read. A part that fails costs its own figures only.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

PARTS: Final[tuple[str, ...]] = ("exact", "rs", "nested", "compression", "partition", "fedkseed", "masked", "selection")
"""The parts in their order; together they take at most twenty minutes."""

ALONE: Final = frozenset({"fleet"})
"""Parts that are a run of their own: only where `--only` names them."""

Figures = dict[str, Any]


def run(options: argparse.Namespace) -> Figures:
    """Measure all parts, or those that `--only` names; what is known so far goes to stderr."""
    chosen = options.only.split(",") if options.only else PARTS
    if unknown := sorted(set(chosen) - {*PARTS, *ALONE}):
        raise SystemExit(f"no such part: {unknown[0]}; there are {', '.join((*PARTS, *sorted(ALONE)))}")
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        for part in chosen:
            begun = time.monotonic()
            try:
                figures |= importlib.import_module(f".methods_{part}", __package__).figures(Path(name))
            except Exception as error:  # noqa: BLE001 - minutes of other figures must not be lost with this one
                figures[f"{part}_missing"] = f"{type(error).__name__}: {error}"[:300]
            figures[f"{part}_s"] = round(time.monotonic() - begun, 1)
            print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures
