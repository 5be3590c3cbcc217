"""`fedit-client eval …`: how good adapters are, on one's own rows or on any others."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from typer.core import TyperGroup

from fedit_client.commands.shared import (
    AsShape,
    DeviceOption,
    Globals,
    Maps,
    Model,
    OnErrorOption,
    Threads,
    device_flags,
    sources_of,
)

_DEFAULT: Final = "own"
_PUBLIC: Final = 0o644

_PLACES: Final = "base, a PEFT folder, a model's folder, or the number of a version."


class EvalGroup(TyperGroup):
    """A group whose first command may be left out: `eval --data FILE` is `eval own --data FILE`."""

    default = _DEFAULT

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command where none of the group's stands."""
        named = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named or ctx.resilient_parsing else [_DEFAULT, *args])


eval_app = typer.Typer(
    cls=EvalGroup,
    help="Measure adapters: on your own held-out rows (own, which may be left out), or any models on any rows.",
    no_args_is_help=False,
    rich_markup_mode=None,
)
Template = Literal["chat", "alpaca", "alpaca_short", "alpaca_legacy", "vigogne"]
Precision = Literal["nf4", "int8", "bf16", "fp32"]


@eval_app.command(_DEFAULT)
def own(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Argument(metavar="URL", help="Report as its evaluator; the joined server.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Rows to measure on; may be repeated.")] = None,
    on_error: OnErrorOption = "stop",
    blind: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Judge N pairs of answers yourself, not told whose they are.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="As the organiser's evaluator: wait for each new adapter.")
    ] = False,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Measure base and newest adapters on your held-out rows. With --watch or URL, report to the organiser."""
    from fedit_client.conversations.foreground import run_async

    given: Globals = context.obj
    config = given.config(model=model, device=device_flags(device, threads))
    paths = tuple(data or ())
    if blind is not None:
        from fedit_client.conversations.blind import judge_blind
        from fedit_client.conversations.own_evaluation import OwnWishes

        judged = run_async(judge_blind(config, given.console, OwnWishes(paths, on_error), blind))
        given.console.answer("eval", judged.as_data(), judged.lines())
        return
    if server is None and not watch:
        from fedit_client.conversations.own_evaluation import OwnWishes, evaluate_own

        own = run_async(evaluate_own(config, given.console, OwnWishes(paths, on_error)))
        given.console.answer("eval", own.as_data(), own.lines())
        return
    from fedit_client.conversations.evaluator import EvaluationWishes
    from fedit_client.conversations.evaluator import evaluate as compare

    try:
        found = run_async(compare(config, given.console, EvaluationWishes(server, paths, on_error, watch)))
    except KeyboardInterrupt:
        given.console.say("stopped; reports that were sent stay with the server")
        raise
    given.console.answer("eval", {"evaluations": found}, [])


@eval_app.command()
def models(
    context: typer.Context,
    places: Annotated[list[str], typer.Argument(metavar="[NAME=]PLACE…", help=_PLACES)],
    data: Annotated[list[str] | None, typer.Option(help="Rows to measure on; may be repeated.")] = None,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "stop",
    template: Annotated[Template | None, typer.Option(help="Prompt template; default: the task's, else chat.")] = None,
    cutoff_tokens: Annotated[
        int | None, typer.Option(min=16, max=32768, help="Cut rows here; default: the task's, else 512.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="How the base is held; default: nf4.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROLE", help="base, local, fed or central: for the gap recovered; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed that these models were trained with.")] = None,
    rouge: Annotated[
        bool,
        typer.Option(
            "--rouge", help="Write answers and score them by ROUGE-L, words of any script; slow. Needs fedit[eval]."
        ),
    ] = False,
    rouge_categories: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Score these categories by ROUGE-L; default: the three of Dolly that fit."),
    ] = None,
    answers: Annotated[Path | None, typer.Option(help="Write every model's answers here, for a judge; slow.")] = None,
    answer_tokens: Annotated[int, typer.Option(min=1, max=8192, help="Longest answer, the same for all.")] = 256,
    against: Annotated[str | None, typer.Option(metavar="NAME", help="Compare all with this; default: base.")] = None,
    out: Annotated[Path | None, typer.Option(help="Append the results to this file, for `eval report`.")] = None,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Measure any models on any rows. Loss by category, right tokens, what is surely better; nothing leaves."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.conversations.measuring import MeasureWishes, measure_models
    from fedit_client.evaluation.summary import summarise
    from fedit_protocol.task import Quantization
    from fedit_protocol.task import Template as Templates

    given: Globals = context.obj
    wishes = MeasureWishes(
        models=tuple(places),
        sources=sources_of(data or (), maps, as_shape, on_error),
        roles=tuple(role or ()),
        template=Templates(template) if template else None,
        cutoff_tokens=cutoff_tokens,
        precision=Quantization(precision) if precision else None,
        seed=seed,
        rouge=rouge or rouge_categories is not None,
        rouge_categories=_names(rouge_categories or ""),
        answers=answers,
        answer_tokens=answer_tokens,
        out=out,
    )
    config = given.config(model=model, device=device_flags(device, threads))
    found = summarise(run_async(measure_models(config, given.console, wishes)), against)
    given.console.answer("eval models", found.as_data(), found.lines())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


@eval_app.command()
def report(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="What eval models, eval tasks and judge wrote to --out.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write one HTML page with plots here. Needs fedit[eval].")] = None,
    against: Annotated[str | None, typer.Option(metavar="NAME", help="Compare all with this; default: base.")] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "Evaluation",
) -> None:
    """Put results side by side, those of one name as seeds. What is surely better, and the gap recovered."""
    from fedit_client.conversations.reporting import read_findings

    given: Globals = context.obj
    found = read_findings(files, against)
    lines = found.lines()
    if out is not None:
        from fedit_client.home.durable import write_atomic

        write_atomic(out, found.page(title).html().encode(), _PUBLIC)
        lines.append(f"the page is {out}")
    given.console.answer("eval report", {**found.as_data(), "page": str(out) if out else None}, lines)


@eval_app.command()
def tasks(
    context: typer.Context,
    places: Annotated[list[str], typer.Argument(metavar="[NAME=]PLACE…", help=_PLACES)],
    task: Annotated[
        list[str], typer.Option("--task", metavar="NAME", help="A task of lm-eval, such as arc_easy; may be repeated.")
    ],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Tasks of your own, as YAML; what they name as code is run.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only so many rows of each task.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Solved rows before each; default: as the task says.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the base's chat template around each question.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Rows at once.")] = 1,
    precision: Annotated[Precision | None, typer.Option(help="How the base is held; default: nf4.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which solved rows are shown.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Append the scores to this file, for `eval report`.")] = None,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Run public benchmarks by the harness lm-eval. Their rows come from the hub; needs fedit[eval]."""
    from fedit_client.conversations.benchmarking import BenchmarkWishes, run_benchmarks
    from fedit_client.conversations.foreground import run_async
    from fedit_protocol.task import Quantization

    given: Globals = context.obj
    config = given.config(model=model, device=device_flags(device, threads))
    held = Quantization(precision) if precision else None
    wishes = BenchmarkWishes(tuple(places), tuple(task), folder, held, rows, shots, chat, batch_size, seed, out)
    found = run_async(run_benchmarks(config, given.console, wishes))
    given.console.answer("eval tasks", found.as_data(), found.lines())
