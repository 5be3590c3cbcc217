"""The named experiments: which rows answer which question, and what the figures say, with seeds and intervals."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from fedit_client.evaluation.statistics import Gap, Interval

from . import checked, evenness, planted
from .evenness import Table
from .results import Model, Results, mean_loss, rounds_to

Findings = Callable[[Results], Iterator[str]]


@dataclass(frozen=True)
class Experiment:
    """One question; `rows` are what its plot shows, beside FedIT."""

    name: str
    title: str
    question: str
    rows: tuple[str, ...]
    clients: tuple[int, ...] = ()
    """Of rows that train single clients its plot shows only these, if any are named."""
    on: tuple[str, ...] = ("test",)
    """The sets of rows that its plot is about, a panel for each."""
    findings: Findings = lambda _: iter(())
    table: Callable[[Results], Table | None] = lambda _: None
    """What is better read as a table; None where nothing of it was run."""
    draw: Callable[[Results, Any], bool] | None = None
    """Its plot, where that is not one of losses: draws on the figure that it is given, and says whether it did."""


def interval(found: Interval, unit: str = "nats") -> str:
    """Return an interval in words."""
    return f"{found.change:+.3f} {unit} [{found.low:+.3f}, {found.high:+.3f}], {found.seeds} seed(s), {found.verdict}"


def _main(results: Results) -> Iterator[str]:
    step = results.preferred("server_step")
    yield from _way(results)
    feds = {("fedit", ""): "FedIT"}
    if step:
        feds["server_step", step] = f"FedIT with a server step of {step}, chosen on the validation rows,"
    for (row, variant), name in feds.items():
        for central, what in (("central_depth", "equal sequential depth"), ("central_small", "K times the steps")):
            yield from _recovered(results.gap(row, central, variant=variant), name, what)
        for seed, (beaten, of) in results.beaten(row, "alone", variant).items():
            yield f"seed {seed}: {name} has a lower loss on all categories together than {beaten} of {of} clients alone"


def _way(results: Results) -> Iterator[str]:
    """How far each model is from the first adapter, where its run has told."""
    found: dict[str, str] = {}
    for row in ("alone", "fedit", "central_depth", "central_small"):
        if norms := [model.told["change_norm"] for model in results.models(row) if "change_norm" in model.told]:
            found[row] = f"{min(norms):.2f}" if len(norms) == 1 else f"{min(norms):.2f} to {max(norms):.2f}"
    if found:
        yield "norm of the change of all factors: " + ", ".join(f"{row} {words}" for row, words in found.items())


def _recovered(gap: Gap | None, name: str, what: str) -> Iterator[str]:
    if gap is None:
        yield f"gap to central training of {what}: not run, or too small to speak of"
        return
    whole = gap.whole
    yield (
        f"of the gap to central training of {what} {name} recovers {whole.change:.0%} "
        f"[{whole.low:.0%}, {whole.high:.0%}], {whole.seeds} seed(s)"
    )
    if gap.worst:
        category, worst = gap.worst
        yield f"  worst category {category}: {worst.change:.0%} [{worst.low:.0%}, {worst.high:.0%}]"


def _optimizers(results: Results) -> Iterator[str]:
    """Each rule with the values that the validation rows prefer; the rounds are counted on the test rows."""
    tried = results.models("rounds10", None) + results.models("rounds10_more", None)
    for plain in results.models("rounds10", "fedavg"):
        if len(plain.curve) < 2:
            continue
        target = plain.curve[-1]
        yield f"seed {plain.seed}: FedAvg has a loss of {target:.4f} after {len(plain.curve)} rounds"
        of_rule: dict[str, list[Model]] = {}
        for model in tried:
            if model.seed == plain.seed and model.told["variant"] != "fedavg" and len(model.curve) > 1:
                of_rule.setdefault(model.told["variant"].partition(",")[0], []).append(model)
        for models in of_rule.values():
            best = min(models, key=lambda model: model.on("validation").loss)
            found = rounds_to(best.curve, target)
            words = f"in {found} rounds" if found else f"not in {len(best.curve)} rounds"
            chosen = f" (of {len(models)} tried on the validation rows)" if len(models) > 1 else ""
            yield f"  {best.told['variant']}{chosen} reaches it {words}; it ends at {best.curve[-1]:.4f}"
    yield from _differences(results, ("fedprox", "scaffold"), "fedit")


def _fairness(results: Results) -> Iterator[str]:
    for row in evenness.FAIR:
        for fair in results.models(row):
            plain = next((model for model in results.models("fedit") if model.seed == fair.seed), None)
            if plain:
                worst, mean = fair.worst[1] / plain.worst[1] - 1, fair.loss / plain.loss - 1
                yield (
                    f"{fair.told['title']}, seed {fair.seed}: worst category {fair.worst[0]} {worst:+.1%}, "
                    f"mean {mean:+.1%} against FedIT{_cut(fair)}"
                )


def _cut(model: Model) -> str:
    """Say how many weights were cut at the task's largest, if any: the rule was then not tried as it is meant."""
    rounds = model.told["rounds"]
    if not any("cut_weights" in note for note in rounds):
        return "; how many weights were cut at the task's largest was not counted"
    cut = sum(int(note.get("cut_weights", 0)) for note in rounds)
    return f"; {cut} weights were cut at the task's largest" if cut else ""


def _further(results: Results) -> Iterator[str]:
    for model in results.models("local_work", None) + results.models("server_step", None):
        at = (
            {one.seed: one for one in results.models("fedit")},
            {one.seed: one for one in results.models("central_small")},
        )
        if model.seed in at[0] and model.seed in at[1]:
            there = at[0][model.seed].loss - at[1][model.seed].loss
            closed = (at[0][model.seed].loss - model.loss) / there if there > 0.01 else float("nan")
            yield f"{model.told['title']}, seed {model.seed}: closes {closed:.0%} of the further gap ({there:.3f} nats)"


def _scarce(results: Results) -> Iterator[str]:
    for step in dict.fromkeys(model.told["variant"] for model in results.models("scarce", None)):
        for seed, (beaten, of) in results.beaten("scarce", "scarce_alone", step).items():
            yield f"seed {seed}: FedIT with a server step of {step} is better than {beaten} of {of} clients alone"
    best = min((model.loss for model in results.models("scarce_alone")), default=None)
    for model in results.models("scarce", None):
        if best is not None:
            found = rounds_to(model.curve, best)
            words = f"in {found} rounds" if found else f"not in {len(model.curve)} rounds"
            yield f"  {model.told['title']}, seed {model.seed}: reaches the best of them ({best:.4f}) {words}"


def _masked(results: Results) -> Iterator[str]:
    for row, words in (("unrounded", "sums of floats"), ("masked", "the masked machines")):
        for other in results.models(row):
            plain = next((model for model in results.models("fedit") if model.seed == other.seed), None)
            if plain:
                yield f"seed {other.seed}: FedIT on the ring minus {words}: {plain.loss - other.loss:+.4f} nats"


def _others(results: Results) -> Iterator[str]:
    for on in ("self_instruct", "aya"):
        for row in ("base", "alone", "fedit", "central_depth", "central_small"):
            if models := results.models(row, "", on):
                yield f"{on}: {models[0].told['title'].split(',')[0]} {mean_loss(models):.3f} ({len(models)} model(s))"


def _two(results: Results) -> Iterator[str]:
    yield from _differences(results, ("two",), "fedit")
    for model in results.models("two"):
        alone = [one for one in results.models("alone") if one.seed == model.seed and one.told["client"] in TWO]
        if alone:
            best = min(alone, key=lambda one: one.loss)
            yield f"seed {model.seed}: the two together {model.loss:.3f}, the better of them alone {best.loss:.3f}"


def _selection(results: Results) -> Iterator[str]:
    yield from _differences(results, ("select_stratified", "select_oort"), "select_uniform")
    for row in ("select_uniform", "select_stratified", "select_oort"):
        for model in results.models(row):
            shares = [float(note["coverage"]) for note in model.told["rounds"] if "coverage" in note]
            if shares:
                yield f"{model.told['title']}, seed {model.seed}: a round covers {fmean(shares):.0%} of the categories"


def _single(results: Results) -> Iterator[str]:
    base = results.models("base")
    for model in results.models("alone"):
        if base and model.seed == 1:
            better = sum(model.by_category[name] < loss for name, loss in base[0].by_category.items())
            words = f"{model.loss:.3f} (base {base[0].loss:.3f}), better in {better} categories"
            yield f"client {model.told['client']} alone: {words}"


def _differences(results: Results, rows: Sequence[str], against: str) -> Iterator[str]:
    for row in rows:
        for variant in dict.fromkeys(model.told["variant"] for model in results.models(row, None)):
            found = results.against(row, variant, against)
            if found:
                title = results.models(row, variant)[0].told["title"]
                yield f"{title} minus {against}: {interval(found)}"


def _against_fedit(*rows: str) -> Findings:
    return lambda results: _differences(results, rows, "fedit")


TWO: Final = (4, 9)
"""The clients of the row `two`."""
METHOD_ROWS: Final = (
    "fedit_rs",
    "ffa",
    "rolora",
    "fedsvd",
    "nested",
    "fed_sb",
    "ravan",
    "fedex_lora",
    "flora",
    "flexlora",
    "fedkseed",
)

EXPERIMENTS: Final = (
    Experiment(
        "main",
        "FedIT between clients alone and central training",
        "How much of what central training gains does a federation recover?",
        ("base", "alone", "fedit", "central_depth", "central_small"),
        findings=_main,
    ),
    Experiment(
        "single", "One client", "What does one client learn from its own rows?", ("base", "alone"), findings=_single
    ),
    Experiment(
        "two",
        "Two complementary clients",
        "What do two clients gain whose categories differ?",
        ("two", "alone"),
        clients=TWO,
        findings=_two,
    ),
    Experiment("ranks", "LoRA ranks", "Which rank is enough?", ("ranks", "fedit"), findings=_against_fedit("ranks")),
    Experiment(
        "methods",
        "Aggregation methods",
        "Does another aggregation of the same updates give a better model?",
        METHOD_ROWS,
        findings=_against_fedit(*METHOD_ROWS),
    ),
    Experiment(
        "optimizers",
        "Server optimisers",
        "In how many rounds is FedAvg's loss of ten rounds reached?",
        ("rounds10", "rounds10_more", "fedprox", "scaffold"),
        findings=_optimizers,
    ),
    Experiment(
        "selection",
        "Client selection",
        "Four of ten clients a round: does it matter how they are chosen?",
        ("select_uniform", "select_stratified", "select_oort"),
        findings=_selection,
    ),
    Experiment(
        "fairness",
        "Fairness across categories",
        "Can the worst category gain without the mean losing?",
        evenness.FAIR,
        findings=_fairness,
        draw=evenness.draw_fairness,
    ),
    Experiment(
        "personal",
        "Personal models",
        "Does each client fare better on its own rows with a model of its own beside the shared one?",
        evenness.PERSONAL,
        findings=evenness.personal_findings,
        table=evenness.personal_table,
        draw=evenness.draw_personal,
    ),
    Experiment(
        "languages",
        "Twelve languages",
        "Each client has four languages: how evenly are all served, and do fair weights help the worst?",
        evenness.LANGUAGES.rows,
        findings=evenness.LANGUAGES.findings,
        table=evenness.LANGUAGES.table,
        draw=evenness.LANGUAGES.draw,
    ),
    Experiment(
        "rare_language",
        "A rare language",
        "Four small clients alone have a language: do fair weights help it, or a longer way?",
        evenness.RARE_LANGUAGE.rows,
        findings=evenness.RARE_LANGUAGE.findings,
        table=evenness.RARE_LANGUAGE.table,
        draw=evenness.RARE_LANGUAGE.draw,
    ),
    Experiment(
        "compression",
        "Fewer bits and fewer numbers",
        "What do fewer bits cost, and what fewer numbers?",
        ("bits4", "fitted4", "sign", "sparse"),
        findings=_against_fedit("bits4", "fitted4", "sign", "sparse"),
    ),
    Experiment(
        "masked",
        "With and without masks",
        "What does the ring cost, what do masks cost?",
        ("unrounded", "masked"),
        findings=_masked,
    ),
    Experiment(
        "further",
        "The further gap",
        "What closes the gap to central training in small batches?",
        ("local_work", "server_step", "central_small"),
        findings=_further,
    ),
    Experiment(
        "scarce",
        "Little data",
        "A hundred clients of about 150 rows, five a round: does FedIT beat each of them alone?",
        ("scarce", "scarce_alone"),
        findings=_scarce,
    ),
    Experiment(
        "partitions",
        "Partitions",
        "How much does it matter who has which rows?",
        ("dirichlet", "stratified", "fedit"),
        findings=_against_fedit("dirichlet", "stratified"),
    ),
    Experiment(
        "check_partition",
        "The partitions, validated",
        "Are the clients as unlike as the partition's form makes them?",
        (),
        findings=checked.partition_findings,
        table=checked.partition_table,
        draw=checked.draw_partition,
    ),
    Experiment(
        "check_judge",
        "Judges against people",
        "How far do recorded verdicts of judges agree with people, and with themselves?",
        (),
        findings=checked.judge_findings,
        table=checked.judge_table,
        draw=checked.draw_judge,
    ),
    Experiment(
        "others",
        "Other data sets",
        "Does what is learned on Dolly hold elsewhere?",
        ("base", "alone", "fedit", "central_depth", "central_small"),
        on=("self_instruct", "aya"),
        findings=_others,
    ),
    Experiment(
        "poisoning",
        "A client that lies",
        "What can one of ten, or three, do to the sum while they stay in their range?",
        planted.ROWS,
        findings=planted.planted_findings,
        table=planted.planted_table,
    ),
)


def shown(models: Sequence[Model]) -> str:
    """Return the seeds behind models in words."""
    return f"{len({model.seed for model in models})}"
