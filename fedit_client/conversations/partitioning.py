"""`fedit-client partition`: a data set dealt to clients, told in a few lines and written to a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedit_client.console import Console
from fedit_client.data import Source
from fedit_client.home.paths import Paths
from fedit_client.partition import (
    Corpus,
    Partition,
    hold_out_more,
    load_partition,
    make_partition,
    parse_form,
    read_corpus,
    split_off_local_test,
    write_partition,
)
from fedit_client.partition.plot import can_plot
from fedit_client.partition.writing import check_free
from fedit_client.records.contacts import note_hub
from fedit_protocol.errors import ConfigError
from fedit_protocol.words import counted

_CLIENTS_SHOWN: Final = 12
_CATEGORIES_SHOWN: Final = 3


@dataclass(frozen=True)
class PartitionWishes:
    """What a person asked for; `like` is a file of lists that takes the place of form, clients and test rows."""

    out: Path
    form: str | None = None
    clients: int | None = None
    seed: int = 42
    test_rows: int | None = None
    test_by: str | None = None
    together: str | None = None
    more_test_rows: int = 0
    local_test: float = 0.0
    like: Path | None = None
    plot: bool = True


def partition_data(paths: Paths, console: Console, source: Source, wishes: PartitionWishes) -> None:
    """Read, deal, write, tell. Raises ConfigError U001 for wishes that exclude each other, DataError, StorageError."""
    _check(wishes)
    check_free(wishes.out.expanduser())
    if source.is_hub:
        note_hub(paths.cache)
    fields = parse_form(wishes.form).fields if wishes.form else ()
    with read_corpus(source, [*fields, *filter(None, (wishes.test_by, wishes.together))]) as corpus:
        partition = _made(corpus, wishes)
        manifest = write_partition(corpus, partition, wishes.out, plot=wishes.plot)
        if corpus.left_out:
            console.warn(f"{counted(corpus.left_out, 'row')} cannot be used and are with nobody: "
                         f"fedit-client data check {source.place}")  # fmt: skip
    if wishes.plot and not can_plot():
        console.notice('no plot was drawn: it needs matplotlib; pip install "fedit[eval]", or --no-plot')
    answer = {name: value for name, value in manifest.items() if name not in {"clients", "test"}} | {
        "out": str(wishes.out),
        "test": {"file": manifest["test"]["file"], "count": manifest["test"]["count"]},
        "clients": [{name: value for name, value in client.items() if name not in {"rows", "local_test"}}
                    for client in manifest["clients"]],
    }  # fmt: skip
    console.answer("partition", answer, _lines(manifest, wishes.out))


def _made(corpus: Corpus, wishes: PartitionWishes) -> Partition:
    if wishes.like:
        partition = load_partition(wishes.like, corpus)
    else:
        test_rows = 10 if wishes.test_rows is None else wishes.test_rows
        partition = make_partition(corpus, wishes.form or "", wishes.clients, wishes.seed, test_rows,
                                   test_by=wishes.test_by, together=wishes.together)  # fmt: skip
    if wishes.more_test_rows:
        partition = hold_out_more(corpus, partition, wishes.more_test_rows, wishes.seed)
    if wishes.local_test:
        partition = split_off_local_test(corpus, partition, wishes.local_test, wishes.seed)
    return partition


def _check(wishes: PartitionWishes) -> None:
    if wishes.like is None and wishes.form is None:
        raise ConfigError("nothing says how to deal the rows", code="U001", fix="fedit-client help partition",
                          again="--clients 10 --by dirichlet:0.5")  # fmt: skip
    excluded = {
        "--by": wishes.form, "--clients": wishes.clients, "--test-rows": wishes.test_rows, "--test-by": wishes.test_by,
        "--together": wishes.together,
    }  # fmt: skip
    told = [option for option, value in excluded.items() if value is not None]
    if wishes.like and told:
        raise ConfigError(f"--like has the lists ready, so {told[0]} has nothing to say", code="U001",
                          fix=f"fedit-client partition DATA --like {wishes.like} --out {wishes.out}")  # fmt: skip


def _lines(manifest: dict[str, Any], out: Path) -> Iterator[str]:
    clients, found, data = manifest["clients"], manifest["meters"], manifest["data"]
    seed = "" if manifest["seed"] is None else f", seed {manifest['seed']}"
    dealt = f"{counted(data['rows'], 'row')} → {counted(len(clients), 'client')}"
    yield f"{data['name']}: {dealt} by {manifest['form']}{seed}"
    width = max(len(client["name"]) for client in clients[:_CLIENTS_SHOWN])
    for client in clients[:_CLIENTS_SHOWN]:
        yield f"  {client['name']:<{width}}  {client['count']:>7,}  {_mix(client)}"
    if len(clients) > _CLIENTS_SHOWN:
        yield f"  … {len(clients) - _CLIENTS_SHOWN:,} more"
    if manifest["test"]["count"]:
        yield f"  with nobody: {counted(manifest['test']['count'], 'test row')}"
    if manifest["unused"]:
        yield f"  unused: {counted(manifest['unused'], 'row')}"
    yield (f"unlike each other in {found['field']}: total variation {found['mean_tv']:.3f}, "
           f"Jensen–Shannon {found['mean_js']:.3f} (0 alike, 1 nothing in common)")  # fmt: skip
    yield (f"sizes {found['smallest']:,} to {found['largest']:,}: CV {found['size_cv']:.2f}, "
           f"Gini {found['size_gini']:.2f}; answer lengths: KL {found['length_kl']:.3f}")  # fmt: skip
    rounds = ", ".join(f"{count} of them {share:.2f}" for count, share in found["coverage"].items())
    yield f"a round covers this share of the categories: {rounds}"
    yield f"{out}: {counted(len(clients), 'file')} of clients and what else there is in manifest.json"


def _mix(client: dict[str, Any]) -> str:
    parts = sorted(client["categories"].items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name or '(none)'} {100 * count / client['count']:.0f} %" for name, count in parts[:_CATEGORIES_SHOWN]]
    return ", ".join(shown) + (" …" if len(parts) > _CATEGORIES_SHOWN else "")
