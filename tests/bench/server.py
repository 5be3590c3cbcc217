"""What a server that many devices lean on costs: its start, its memory, its answers, its disk, its pages, its heirs."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .ingest import ingest_figures
from .server_checkins import checkins_over_bare
from .server_crowd import crowd_figures
from .server_home import make_home
from .server_journal import journal_figures
from .server_start import start_figures
from .server_store import commit_figures, page_figures
from .server_takeover import takeover_figures

Figures = dict[str, Any]


def run(options: argparse.Namespace) -> Figures:
    """Measure everything; with the whole crowd of `--devices` it takes about ten minutes."""
    with tempfile.TemporaryDirectory() as name:
        home = make_home(Path(name), options.devices)
        works: dict[str, Callable[[], Figures]] = {
            "start_to_ready_s": lambda: start_figures(home),
            "checkins_over_bare": lambda: checkins_over_bare(home),
            "commit_ms_sqlite": commit_figures,
            "round_transactions": journal_figures,
            "pages_kb": page_figures,
            "ingest_cpu_over_sink": ingest_figures,
            "replica_takeover_s": takeover_figures,
            "rss_mb": lambda: crowd_figures(home, options.lasts),
        }
        figures: Figures = {}
        for key, work in works.items():
            try:
                figures |= work()
            except Exception as error:  # noqa: BLE001 - minutes of other figures must not be lost with this one
                figures |= {key: None, f"{key}_missing": f"{type(error).__name__}: {error}"[:300]}
            print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures
