"""How evenly models serve: each client by the rows that it kept apart, each language by the same questions in all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from fedit_client.evaluation.statistics import Pairs, headline, jain, paired_interval, pooled_interval

from .drawing import draw_categories
from .results import Model, Results, pairs_of

OWN_MODELS = ("fedsa", "ditto", "fedalt")
PERSONAL = ("personal_alone", "personal_fedit", *OWN_MODELS)
FAIR = ("afl", "term", "qffl")
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Head and lines of texts."""

_BASE = "languages_base"
_HEAD = ("loss, mean", "worst", "standard deviation", "Jain index")


def personal_table(results: Results) -> Table | None:
    """Return head and lines: the loss over the clients' own rows, and how many clients fare better than alone."""
    alone = {model.seed: model for model in own_models(results, "personal_alone")}
    lines: list[list[str]] = []
    for row in PERSONAL:
        if models := own_models(results, row):
            better = [_better(model, alone[model.seed]) for model in models if model.seed in alone]
            lines.append(
                [
                    str(models[0].told["title"].partition(",")[0]),
                    *_spread(_mean([model.by_category for model in models])),
                    _against(models, own_models(results, "personal_fedit")) if row != "personal_fedit" else "",
                    ", ".join(better) if row != "personal_alone" else "",
                    str(len(models)),
                ]
            )
    head = ("model", *_HEAD, "against FedIT, 95 % interval", "clients better off than alone", "seeds")
    return (head, lines) if lines else None


@dataclass(frozen=True)
class Languages:
    """An experiment on how evenly languages are served: its row of weights by rows, and those held against it."""

    plain: str
    others: tuple[str, ...]
    """Rows of fair weights, or of another step."""
    alone: str = ""
    """Its row of clients alone, if it has one."""

    @property
    def rows(self) -> tuple[str, ...]:
        """All of its rows, in the order of its table."""
        return (_BASE, *filter(None, [self.alone]), self.plain, *self.others)

    def table(self, results: Results) -> Table | None:
        """Return head and lines: the loss over languages, where the base has lost least, and every language's own."""
        base = next((model.by_category for model in results.models(_BASE, "", "languages")), None)
        lines: list[list[str]] = []
        names: list[str] = []
        for row in self.rows:
            if models := results.models(row, "", "languages"):
                losses = _mean([model.by_category for model in models])
                names = names or sorted(losses)
                lines.append(
                    [
                        _said(models[0]).partition(", client")[0],
                        *_spread(losses),
                        _least_gain(base, losses) if base and row != _BASE else "",
                        _against(models, self._plain(results)) if row in (_BASE, *self.others) else "",
                        str(len({model.seed for model in models})),
                        *(f"{losses[name]:.2f}" for name in names),
                    ]
                )
        head = ("model", *_HEAD, "least gain on the base", "against FedIT, 95 % interval", "seeds", *names)
        return (head, lines) if lines else None

    def findings(self, results: Results) -> Iterator[str]:
        """Yield how many clients alone fare worse, and what each other row changes for the worst and for the mean."""
        for seed, (beaten, of) in results.beaten(self.plain, self.alone, on="languages").items():
            yield f"FedIT, seed {seed}: a lower loss on all languages together than {beaten} of {of} clients alone"
        plain = {model.seed: model for model in self._plain(results)}
        for model in self._others(results):
            if other := plain.get(model.seed):
                name, worst = model.worst
                apart = pstdev(model.by_category.values()) / pstdev(other.by_category.values())
                there = paired_interval(_inside(pairs_of(model, other), name))
                yield (
                    f"{_said(model)}, seed {model.seed}: worst language {name} {worst / other.worst[1] - 1:+.1%} "
                    f"(there {there.change:+.3f} nats [{there.low:+.3f}, {there.high:+.3f}]), mean "
                    f"{model.loss / other.loss - 1:+.1%}, standard deviation {apart - 1:+.1%}"
                )

    def draw(self, results: Results, figure: Any) -> bool:
        """Draw what the other rows change for each language."""
        return draw_categories(figure, self._others(results), self._plain(results))

    def _plain(self, results: Results) -> list[Model]:
        return results.models(self.plain, "", "languages")

    def _others(self, results: Results) -> list[Model]:
        return [model for row in self.others for model in results.models(row, "", "languages")]


LANGUAGES = Languages("languages", ("languages_afl", "languages_afl_fast", "languages_term"), "languages_alone")
RARE_LANGUAGE = Languages("rare", ("rare_afl", "rare_afl_fast", "rare_step"))


def personal_findings(results: Results) -> Iterator[str]:
    """Yield what each personal method brings against the better of FedIT and every client alone."""
    alone = {model.seed: model for model in own_models(results, "personal_alone")}
    plain = {model.seed: model for model in own_models(results, "personal_fedit")}
    for row in OWN_MODELS:
        for model in own_models(results, row):
            others = {"FedIT": plain.get(model.seed), "alone": alone.get(model.seed)}
            known = {name: other.loss for name, other in others.items() if other}
            if known:
                name = min(known, key=lambda other: known[other])
                title = model.told["title"].partition(",")[0]
                yield f"{title}, seed {model.seed}: {model.loss - known[name]:+.4f} nats against {name}, the better one"


def draw_fairness(results: Results, figure: Any) -> bool:
    """Draw what fair weights change for each category."""
    return draw_categories(figure, [one for row in FAIR for one in results.models(row)], results.models("fedit"))


def draw_personal(results: Results, figure: Any) -> bool:
    """Draw how each client fares alone and with a model of its own, against the one model for all."""
    own = [one for row in ("personal_alone", *OWN_MODELS) for one in own_models(results, row)]
    return draw_categories(figure, own, own_models(results, "personal_fedit"))


def own_models(results: Results, row: str) -> list[Model]:
    """Return a row's models on the clients' own rows, those of single clients put together: one for each seed."""
    by_seed: dict[int, list[Model]] = {}
    for model in results.models(row, "", "own"):
        by_seed.setdefault(model.seed, []).append(model)
    return [_joined(models) for _, models in sorted(by_seed.items())]


def _joined(models: Sequence[Model]) -> Model:
    if len(models) == 1:
        return models[0]
    names = [name for name in models[0].figures if name != "left_out"]
    figures = {name: [value for model in models for value in model.figures[name]] for name in names}
    return Model({**models[0].told, "figures": {"own": figures}}, "own")


def _mean(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(one[name] for one in losses) for name in losses[0]}


def _spread(losses: Mapping[str, float]) -> list[str]:
    name, worst = max(losses.items(), key=lambda item: item[1])
    found = list(losses.values())
    return [f"{headline(losses):.4f}", f"{name} {worst:.3f}", f"{pstdev(found):.3f}", f"{jain(found):.4f}"]


def _least_gain(base: Mapping[str, float], losses: Mapping[str, float]) -> str:
    gains = {name: base[name] - loss for name, loss in losses.items()}
    name = min(gains, key=lambda one: gains[one])
    return f"{name} {gains[name]:.3f}"


def _against(models: Sequence[Model], plain: Sequence[Model]) -> str:
    theirs = {model.seed: model for model in plain}
    pairs = [pairs_of(model, theirs[model.seed]) for model in models if model.seed in theirs]
    if not pairs:
        return ""
    found = pooled_interval(pairs)
    return f"{found.change:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _better(model: Model, alone: Model) -> str:
    both = model.by_category.keys() & alone.by_category.keys()
    return f"{sum(model.by_category[name] < alone.by_category[name] for name in both)} of {len(both)}"


def _said(model: Model) -> str:
    """A row's title without the experiment that it begins with."""
    return str(model.told["title"]).partition(": ")[2]


def _inside(pairs: Pairs, category: str) -> Pairs:
    """The rows of one category alone."""
    places = [place for place, name in enumerate(pairs.categories) if name == category]
    return Pairs([category] * len(places), pairs.tokens[places], pairs.ours[places], pairs.theirs[places])
