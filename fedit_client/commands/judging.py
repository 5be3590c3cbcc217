"""`fedit-client judge …`: a language model judges answers, and people judge the judge."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import Globals

judge_app = typer.Typer(
    help="Have a language model judge answers, and see how far it agrees with people.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
JudgeName = Annotated[str, typer.Option("--judge", metavar="MODEL", help="The judge's name at its address.")]
Url = Annotated[
    str | None, typer.Option(help="OpenAI-compatible address, such as https://HOST/v1; default: OPENAI_BASE_URL.")
]
OutFile = Annotated[Path, typer.Option(help="Keep every reply here; the same file again asks only what is missing.")]
ModeOption = Annotated[
    Literal["pairwise", "score"],
    typer.Option(help="A, B or tie; or scores from 1 to 10, by whose sums to compare."),
]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Published prompts, of FastChat or Vicuna; default: our own.")
]
Repeats = Annotated[int, typer.Option(min=1, max=100, help="How often each order is asked.")]
Most = Annotated[int | None, typer.Option("--most", min=1, metavar="N", help="Only the first N questions.")]
AtOnce = Annotated[int, typer.Option(min=1, max=64, help="Requests at a time.")]
Temperature = Annotated[float, typer.Option(min=0.0, max=2.0, help="Left out where the judge does not take it.")]
MaxTokens = Annotated[int, typer.Option(min=16, max=32768, help="Longest reply.")]
PriceIn = Annotated[float | None, typer.Option(min=0.0, help="Price of a million tokens of questions.")]
PriceOut = Annotated[float | None, typer.Option(min=0.0, help="Price of a million tokens of replies.")]


@judge_app.command("run")
def run(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Answers, as `eval models --answers` writes.")],
    judge: JudgeName,
    out: OutFile,
    against: Annotated[str, typer.Option(metavar="NAME", help="Whose answers the others' are compared with.")] = "base",
    compare: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Whose answers to compare; default: all others.")
    ] = None,
    url: Url = None,
    mode: ModeOption = "pairwise",
    prompts: Prompts = None,
    repeats: Repeats = 1,
    most: Most = None,
    at_once: AtOnce = 4,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 1024,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """Compare answers in both orders. They leave this machine unless the judge is on it; the key is OPENAI_API_KEY."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.conversations.judging import JudgeWishes, run_judge
    from fedit_client.judging.prompts import Mode

    given: Globals = context.obj
    cache = given.config().paths.cache
    wishes = JudgeWishes(judge, out, url, Mode(mode), prompts, repeats, most, at_once, temperature, max_tokens,
                         price_in, price_out, cache)  # fmt: skip
    found = run_async(run_judge(given.console, wishes, files, tuple(compare or ()), against))
    given.console.answer("judge run", found.as_data(), found.lines())


@judge_app.command("validate")
def validate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Pairs of answers with labels of people.")],
    judge: JudgeName,
    out: OutFile,
    subset: Annotated[str | None, typer.Option(metavar="TEXT", help="Only subsets with this in their name.")] = None,
    url: Url = None,
    mode: ModeOption = "pairwise",
    prompts: Prompts = None,
    repeats: Repeats = 1,
    most: Most = None,
    at_once: AtOnce = 4,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 1024,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """Have a judge judge what people have judged, and keep with its verdicts how far they agree."""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.conversations.judging import JudgeWishes, chosen_pairs, validate_judge
    from fedit_client.judging.prompts import Mode

    given: Globals = context.obj
    cache = given.config().paths.cache
    wishes = JudgeWishes(judge, out, url, Mode(mode), prompts, repeats, most, at_once, temperature, max_tokens,
                         price_in, price_out, cache)  # fmt: skip
    pairs, name = chosen_pairs(file, subset)
    found = run_async(validate_judge(given.console, wishes, pairs, name))
    given.console.answer("judge validate", found.as_data(), found.lines())


@judge_app.command("agreement")
def agreement(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Pairs with labels of people and recorded verdicts of judges.")],
    subset: Annotated[str | None, typer.Option(metavar="TEXT", help="Only subsets with this in their name.")] = None,
    judge: Annotated[str | None, typer.Option(metavar="TEXT", help="Only judges with this in their name.")] = None,
) -> None:
    """Count how far recorded verdicts agree with people. Ties, position consistency, Cohen's kappa."""
    from fedit_client.conversations.judging import agreement_line, chosen_pairs
    from fedit_client.judging.agreement import agreement as agree
    from fedit_client.judging.labels import by_judge

    given: Globals = context.obj
    pairs, _ = chosen_pairs(file, subset)
    found = {
        (place, name): agree(labelled)
        for (place, name), labelled in sorted(by_judge(pairs).items())
        if judge is None or judge in name
    }
    data = [{"subset": place, "judge": name, **one.as_data()} for (place, name), one in found.items()]
    lines = [agreement_line(f"{place} · {name}", one) for (place, name), one in found.items()]
    given.console.answer("judge agreement", {"agreements": data}, lines or ["no judge of the file has such a name"])
