"""Lets atheris look for bytes that break a decoder: `python -m tests.server.searching NAME SECONDS`."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fedit_protocol", "fedit_server", "tomllib", "json", "tarfile"]):
    from .decoders import DECODERS


def search(name: str, seconds: int) -> None:
    """Search one decoder for so long, its corpus in this folder; it ends the process, with an error for a finding."""
    decoder = DECODERS[name]
    corpus = Path(tempfile.mkdtemp(dir="."))
    (corpus / "seed").write_bytes(decoder.seed)
    limits = [f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=10", "-max_len=16384"]
    atheris.Setup([sys.argv[0], *limits, "-verbosity=0", "-print_final_stats=1", str(corpus)], decoder.survives)
    atheris.Fuzz()


if __name__ == "__main__":
    search(sys.argv[1], int(sys.argv[2]))
