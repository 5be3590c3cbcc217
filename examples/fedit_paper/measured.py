"""All results in one file, a line each, a set of rows written once; `measured/` has those that come with the code."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from fedit_protocol.encoding import hash_parts

from .plan import HERE

_ALIKE: Final = ("rows", "categories", "tokens")
"""What every model that is measured on the same rows has alike."""
_Told = dict[str, Any]


def packed(results: Iterable[Mapping[str, Any]]) -> bytes:
    """Return results as lines of JSON: a set of rows before the first result that was measured on it."""
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in _lines(results))


def _lines(results: Iterable[Mapping[str, Any]]) -> Iterator[_Told]:
    written: set[str] = set()
    for told in results:
        figures: _Told = {}
        for name, found in cast("Mapping[str, _Told]", told["figures"]).items():
            alike = {key: found[key] for key in _ALIKE}
            digest = hash_parts("measured rows", json.dumps(alike)).hex()[:16]
            if digest not in written:
                written.add(digest)
                yield {"set": digest, **alike}
            figures[name] = {"set": digest, **{key: value for key, value in found.items() if key not in _ALIKE}}
        yield {**told, "figures": figures}


def unpacked(lines: Iterable[str]) -> list[_Told]:
    """Return the results of such lines, each whole, as its own file has it."""
    sets: dict[str, _Told] = {}
    results: list[_Told] = []
    for line in lines:
        told: _Told = json.loads(line)
        if "set" in told:
            sets[told["set"]] = {key: told[key] for key in _ALIKE}
        else:
            figures = cast("Mapping[str, _Told]", told["figures"])
            told["figures"] = {name: {**sets[found.pop("set")], **found} for name, found in figures.items()}
            results.append(told)
    return results


def measured(profile: str, folder: Path = HERE / "measured") -> Sequence[_Told]:
    """Return the results of a profile that come with the code; none where nobody has measured it."""
    file = folder / f"{profile}.jsonl"
    return unpacked(file.read_text("utf-8").splitlines()) if file.is_file() else []
