"""Run the named benches and print what they measured, as a table or as one JSON object."""

import argparse
import importlib
import json
from collections.abc import Sequence

from . import options as bench_options

BENCHES = ("secagg", "training", "server", "methods")
TAKING_OPTIONS = {"training", "server", "methods"}

Figure = float | str | None
Result = dict[str, Figure | dict[str, Figure]]


def measure(name: str, options: argparse.Namespace) -> Result:
    """Run one bench; its module is imported only now, so that `secagg` never waits for torch."""
    bench = importlib.import_module(f"tests.bench.{name}")
    result: Result = bench.run(options) if name in TAKING_OPTIONS else bench.run()
    return result


def table(results: dict[str, Result]) -> str:
    """The results for people: one line per number, a dash for what could not be measured here."""
    lines = []
    for name, result in results.items():
        rows = flat(result)
        width = max((len(key) for key in rows), default=0)
        lines.append(name)
        lines += [f"  {key:<{width}}  {shown(value)}" for key, value in rows.items()]
    return "\n".join(lines)


def flat(result: Result) -> dict[str, Figure]:
    """The figures with those of an inner object named `outer.inner`."""
    rows: dict[str, Figure] = {}
    for key, value in result.items():
        rows |= (
            {f"{key}.{inner}": figure for inner, figure in value.items()} if isinstance(value, dict) else {key: value}
        )
    return rows


def shown(value: Figure) -> str:
    """The value as a person reads it: four digits that count, or a dash."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:,.4g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, run the benches one after the other, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, parents=[bench_options.parser()]
    )
    parser.add_argument("names", nargs="*", metavar="bench", help=f"one or more of {', '.join(BENCHES)}; all if none")
    parser.add_argument("--json", action="store_true", help="print one JSON object: bench → name → value")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    results = {name: measure(name, options) for name in options.names or BENCHES}
    print(json.dumps(results, indent=2) if options.json else table(results))


if __name__ == "__main__":
    main()
