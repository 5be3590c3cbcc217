"""One HTML page of tables and figures that needs no network, no script and no file beside it (extra `eval`)."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Final, Self

from fedit_client.evaluation.metrics import missing
from fedit_client.evaluation.scoreboard import Score, Scoreboard
from fedit_client.evaluation.summary import Summary, gap_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0 }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8886; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
figure { margin: 1.5rem 0 } figcaption { color: #777 } img { max-width: 100%; background: #fff }
"""


@dataclass
class Page:
    """A report that grows from top to bottom; every text is escaped."""

    title: str
    _parts: list[str] = field(default_factory=list)

    def section(self, text: str) -> Self:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")
        return self

    def heading(self, text: str) -> Self:
        """Add a heading within a section."""
        self._parts.append(f"<h3>{escape(text)}</h3>")
        return self

    def text(self, paragraph: str) -> Self:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(paragraph)}</p>")
        return self

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Self:
        """Add a table of texts."""
        body = "".join(_row(row, "td") for row in rows)
        self._parts.append(f"<table><thead>{_row(head, 'th')}</thead><tbody>{body}</tbody></table>")
        return self

    def figure(self, figure: "Figure", caption: str) -> Self:
        """Add a figure, drawn into the page; the caption is also what somebody who cannot see it is told."""
        told = escape(caption)
        image = f'<img alt="{told}" src="data:image/svg+xml;base64,{_drawn(figure)}">'
        self._parts.append(f"<figure>{image}<figcaption>{told}</figcaption></figure>")
        return self

    def html(self) -> str:
        """Return the page; the same content gives the same bytes."""
        title = escape(self.title)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
            f"'unsafe-inline'\"><title>{title}</title><style>{_STYLE}</style></head>\n"
            f"<body><h1>{title}</h1>\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )


def new_figure(width: float = 8.0, height: float = 4.0) -> "Figure":
    """Return an empty figure, inches wide and high, that needs no screen; raises EvaluationError V003."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib", "a plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def add_losses(page: Page, summary: Summary) -> None:
    """Add everything that a summary knows; raises EvaluationError V003 without matplotlib."""
    page.section("Losses").text(
        f"{summary.rows} rows, {summary.tokens:,} answer tokens. Loss is nats per answer token, the mean over "
        f"{len(summary.categories)} categories; ± is the standard deviation over seeds."
    )
    page.heading("Models").table(*summary.table())
    page.figure(
        losses_figure(summary), "Loss of each model, mean over categories; a dot is a seed, the stroke their mean."
    )
    if summary.differences:
        page.heading(f"Against {summary.against}")
        page.text(
            "Paired bootstrap, 2,000 draws of rows inside categories and, with several seeds, of seeds. Better or "
            "worse only where the 95 % interval excludes 0."
        )
        page.table(*_differences(summary))
        page.figure(intervals_figure(summary), f"Difference of the loss from {summary.against}, 95 % intervals.")
    if summary.gaps:
        page.heading("Gap recovered")
        for (fed, central), gap in summary.gaps.items():
            page.text(gap_words(fed, central, gap))
    page.heading("Categories")
    head = ["category", *(model.name for model in summary.models)]
    rows = [[name or "(none)", *(f"{model.by_category[name]:.3f}" for model in summary.models)]
            for name in summary.categories]  # fmt: skip
    page.table(head, rows)
    page.figure(categories_figure(summary), "Loss of each model in each category.")
    page.heading("How it was measured").table(["model", "what"], _origins(summary))


def add_benchmarks(page: Page, boards: Sequence[Scoreboard]) -> None:
    """Add the scores of public benchmarks; raises EvaluationError V003 without matplotlib."""
    page.section("Public benchmarks").text(
        "By the harness lm-eval. ± is the standard deviation over seeds, or of one seed the standard error that the "
        "harness states."
    )
    for board in boards:
        page.heading(board.setting[:1].upper() + board.setting[1:]).table(*board.table())
        if any(_is_share(found) for found in board.scores.values()):
            page.figure(scores_figure(board), "Scores from 0 to 1 of each model; a stroke is ± as in the table.")
        page.table(["model", "how it was run"], [[name, told] for name, told in board.held.items()])


def losses_figure(summary: Summary) -> "Figure":
    """Draw each model's loss with a dot for every seed."""
    figure = new_figure(8, 1 + 0.35 * len(summary.models))
    axes: Any = figure.subplots()
    names = [model.name for model in summary.models]
    for place, model in enumerate(summary.models):
        axes.plot([result.loss for result in model.results], [place] * model.seeds, "o", color="#7aa6c2")
        axes.plot(model.loss, place, "|", color="#234", markersize=14)
    axes.set_yticks(range(len(names)), names)
    axes.margins(0.1)
    axes.invert_yaxis()
    axes.set_xlabel("loss, nats per answer token")
    return figure


def intervals_figure(summary: Summary) -> "Figure":
    """Draw how each model differs from the one that all are set against."""
    found = list(summary.differences.items())
    figure = new_figure(8, 1 + 0.35 * len(found))
    axes: Any = figure.subplots()
    for place, (_, interval) in enumerate(found):
        axes.plot([interval.low, interval.high], [place, place], color="#234")
        axes.plot(interval.change, place, "o", color="#234")
    axes.margins(y=0.2)
    axes.axvline(0, color="#a33", linewidth=1)
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.invert_yaxis()
    axes.set_xlabel(f"loss minus that of {summary.against}")
    return figure


def categories_figure(summary: Summary) -> "Figure":
    """Draw the losses of all models, category by category."""
    figure = new_figure(8, 1 + 0.5 * len(summary.categories))
    axes: Any = figure.subplots()
    places = range(len(summary.categories))
    for model in summary.models:
        axes.plot([model.by_category[name] for name in summary.categories], places, "o", label=model.name, alpha=0.8)
    axes.set_yticks(places, [name or "(none)" for name in summary.categories])
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel("loss, nats per answer token")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def scores_figure(board: Scoreboard) -> "Figure":
    """Draw the scores of all models in each task, those metrics that lie between 0 and 1."""
    shown = {key: found for key, found in board.scores.items() if _is_share(found)}
    figure = new_figure(8, 1 + 0.5 * len(shown))
    axes: Any = figure.subplots()
    for number, name in enumerate(board.models):
        beside = 0.5 * (number + 0.5) / len(board.models) - 0.25  # equal scores would hide each other
        there = [(place + beside, found[name]) for place, found in enumerate(shown.values()) if name in found]
        axes.errorbar([score.value for _, score in there], [place for place, _ in there],
                      xerr=[score.error or 0.0 for _, score in there], fmt="o", label=name, alpha=0.8)  # fmt: skip
    axes.set_yticks(range(len(shown)), [f"{task} {metric}" for task, metric in shown])
    axes.margins(y=0.2)
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel("score")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _is_share(found: Mapping[str, Score]) -> bool:
    return all(0 <= score.value <= 1 for score in found.values())


def _differences(summary: Summary) -> tuple[list[str], list[list[str]]]:
    head = ["model", "difference", "95 % interval", "seeds", "verdict", "each seed"]
    rows = [
        [name, f"{found.change:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}", str(found.seeds), found.verdict,
         ", ".join(one.verdict for one in summary.by_seed[name])]
        for name, found in summary.differences.items()
    ]  # fmt: skip
    return head, rows


def _origins(summary: Summary) -> list[list[str]]:
    rows = []
    for model in summary.models:
        told = {**model.results[0].versions, **model.results[0].facts}
        rows.append([model.name, " · ".join(f"{name} {value}" for name, value in told.items())])
    return rows


def _row(texts: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"


def as_svg(figure: "Figure", *, own_fonts: bool = True) -> bytes:
    """Return a figure as SVG; no date and fixed names of its parts, so that two can be compared.

    `own_fonts` draws each letter, which looks alike everywhere; without it a file is a third as large.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fedit", "svg.fonttype": "path" if own_fonts else "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _drawn(figure: "Figure") -> str:
    return base64.b64encode(as_svg(figure)).decode()
