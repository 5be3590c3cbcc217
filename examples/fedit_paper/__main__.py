"""The paper from one command: `python -m examples.fedit_paper --profile smoke|cpu|full [ROW, EXPERIMENT, RUN …]`."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import platformdirs

from fedit_client.base.model import resolve_base
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.machine import Machine
from fedit_client.hardware.plan import DType
from fedit_client.training.tiny_llama import make_tiny_llama
from fedit_protocol.errors import FeditError
from fedit_protocol.task import Quantization

from . import data
from .measured import measured
from .plan import NO_DIGEST, Profile, Run, read_profile, read_rows, runs_of
from .pool import Shift, in_processes
from .runner import Bench

_MOST_BYTES = 40 * 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and not there yet, then write the report of all that is there."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(given)
    profile, rows = read_profile(options.profile), read_rows()
    if options.precision:
        profile = replace(profile, name=f"{profile.name}_{options.precision}", precision=options.precision)
    if options.partition:
        if options.partition not in data.PUBLISHED:
            data.many_of(options.partition)  # a name that there is not is told here, not by every run
        profile = profile.on(options.partition)
    runs = runs_of(rows, profile, options.rows, options.seeds)
    if options.list:
        for run in runs:
            run.task(profile, NO_DIGEST)  # a row that is no task is told here, not in the middle of the night
            print(f"{run.name:34} {run.row.experiment:12} {run.title}")
        return 0
    options.until = options.until or (time.time() + options.seconds if options.seconds else 0.0)
    for one in profile.all():
        out: Path = options.out or Path(f"build/fedit_paper_{profile.name}")
        again = options.again or one.name != profile.name
        out = out if one.name == profile.name else out.with_name(f"{out.name}_{one.partition}")
        besides: Sequence[Mapping[str, Any]] = measured(one.name) if options.measured else []
        if options.measured and not besides:
            print(f"no results of the profile {one.name} come with the code: --measured changes nothing",
                  file=sys.stderr)  # fmt: skip
        if not options.report:
            mine = [run for run in runs if not (again and run.row.partition)]  # those with their own are run once
            _work(one, mine, [*given, *(["--again"] if again else [])], options, out, besides)
        if not options.worker and not options.no_report:
            from .report import write_report  # brings a plotting library, which a machine that only trains may lack

            print(write_report(out, rows, one, besides))
    return 0


def _work(
    profile: Profile,
    runs: Sequence[Run],
    given: Sequence[str],
    options: argparse.Namespace,
    out: Path,
    besides: Sequence[Mapping[str, Any]],
) -> None:
    if options.processes > 1 and not options.worker:
        alone = ("--partition", profile.partition, "--out", str(out), "--until", str(options.until))
        in_processes([*given, *alone], options.processes)
    else:
        bench, known = bench_of(profile, options, out), {told["name"]: told for told in besides}
        left = [run for run in runs if run.name not in known or not bench.stands_for(known[run.name], run)]
        Shift(bench, left, options.until).work()


def bench_of(profile: Profile, options: argparse.Namespace, out: Path) -> Bench:
    """Return the bench that the arguments ask for; may fetch the base."""
    cache, place = platformdirs.user_cache_path("fedit-client"), data.folder(options.data)
    if options.base:
        base: Path = options.base
    elif profile.model == "tiny":
        base = tiny_base(out / "cache" / "tiny")
    else:
        base = resolve_base(profile.model, "", cache, most_bytes=_MOST_BYTES, say=print)
    plan = plan_of(profile, options.device, options.threads)
    return Bench(profile, base, plan, place, out, options.curve)


def tiny_base(folder: Path) -> Path:
    """Return the tiny base in this folder; where several processes make it, one of them wins, and it is whole."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as place:
            made = make_tiny_llama(Path(place) / "made")
            with suppress(OSError):  # another process was faster
                made.rename(folder)
    return folder


def plan_of(profile: Profile, device: str, threads: int) -> DevicePlan:
    """Return how the runs are trained: on the device that was asked for, never on another one in silence."""
    machine, precision = Machine.here(), Quantization(profile.precision)
    if device == "cuda":
        name = machine.gpus[0].name if machine.gpus else "CUDA"
        dtype: DType = "float32" if precision is Quantization.FP32 else "bfloat16"
        return DevicePlan("cuda:0", threads, precision, dtype, "asked for", 0, 0, kind="cuda", name=name)
    dtype = "bfloat16" if machine.cpu_bfloat16 and precision is not Quantization.FP32 else "float32"
    return DevicePlan("cpu", threads, precision, dtype, "asked for", 0, 0, name=f"CPU, {dtype}")


def parser() -> argparse.ArgumentParser:
    """Return the arguments of this program."""
    found = argparse.ArgumentParser(prog="python -m examples.fedit_paper", description=__doc__)
    found.add_argument("rows", nargs="*", help="rows, experiments or runs; all without any")
    found.add_argument("--profile", default="cpu", help="smoke, cpu or full: how large everything is")
    found.add_argument("--seeds", type=int, default=0, help="seeds of every run; 0 means what row and profile say")
    found.add_argument("--out", type=Path, help="folder of the results; build/fedit_paper_PROFILE without one")
    found.add_argument("--data", default="", help="folder of the data sets; else FEDIT_TEST_DATA, else ../shared/data")
    found.add_argument("--base", type=Path, help="folder of the base model, instead of the profile's")
    found.add_argument("--partition", default="", help="another partition than the profile says")
    found.add_argument("--precision", choices=[*Quantization], help="of the base, instead of the profile's")
    found.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what trains")
    found.add_argument("--threads", type=int, default=1, help="threads of each process")
    found.add_argument("--processes", type=int, default=1, help="runs at the same time, on one device")
    found.add_argument("--seconds", type=float, default=0, help="begin no run that would not end within this time")
    found.add_argument("--curve", action="store_true", help="measure after every round, whatever the profile says")
    found.add_argument("--measured", action="store_true", help="take the results that come with the code as done")
    found.add_argument("--report", action="store_true", help="train nothing, write the report of what is there")
    found.add_argument("--no-report", action="store_true", help="train only")
    found.add_argument("--list", action="store_true", help="show all runs in their order, and do nothing")
    found.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)
    found.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    found.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return found


def told(program: Callable[[], int]) -> int | str:
    """Run a program and return its exit status, or how what it refuses is told."""
    try:
        return program()
    except FeditError as error:
        fix = f"\n  fix     {error.fix}" if error.fix else ""
        return f"error: FEDIT-{error.code} {error}{fix}"


if __name__ == "__main__":
    sys.exit(told(main))
