"""Rows of a data set on the hub, through `datasets`: no code of the data set runs, and offline mode is honoured."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fedit_client.data.files import NumberedRow
from fedit_protocol.errors import DataError

_ID: Final = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<split>[\w.\-+\[\]:%]+))?")
_FIRST_SPLIT: Final = "train"


def is_hub_id(text: str) -> bool:
    """Say whether a text reads as `org/name[:split]`; a file or folder of that name comes first."""
    return _ID.fullmatch(text) is not None


def hub_rows(text: str, notes: list[str]) -> Iterator[NumberedRow]:
    """Yield the rows of `org/name[:split]`, numbered from 1; without a split, those of the only one, or of `train`.

    What was chosen is added to `notes`. Raises DataError D019 (`datasets` is missing), D023 (it cannot be fetched),
    D024 (no such split).
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no data set of the hub")
    yield from dataset_rows(found["name"], found["split"], notes)


def dataset_rows(name: str, split: str | None, notes: list[str]) -> Iterator[NumberedRow]:
    """Yield the rows of a data set by its name, or of a folder that `datasets` reads; raises like `hub_rows`."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "rows from the hub need the package datasets, which is not installed",
            code="D019",
            where=name,
            fix='pip install "fedit[hub]"',
        ) from error
    loaded = _loaded(datasets, name, split)
    if isinstance(loaded, dict):
        loaded = _chosen(loaded, name, notes)
    # As arrow tables: pictures and sounds stay undecoded, and are columns that nobody reads.
    tables = loaded.with_format("arrow").iter(batch_size=1024)
    yield from enumerate((row for table in tables for row in table.to_pylist()), start=1)


@contextmanager
def plain_download(datasets: Any) -> Iterator[None]:
    """Load without bars, and without the library telling a counter on another host: rows are asked for, no more."""
    bars, counts = datasets.is_progress_bar_enabled(), datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if bars:
            datasets.enable_progress_bars()


def _loaded(datasets: Any, name: str, split: str | None) -> Any:
    try:
        with plain_download(datasets):
            # Data sets that are code cannot be loaded: `datasets` 4 and later have no way to run one.
            return datasets.load_dataset(name, split=split)
    except ValueError as error:
        if "split" in str(error).lower():
            raise DataError(
                f"the data set has no split {split}", code="D024", where=name, fix=f"fedit-client data check {name}"
            ) from error
        raise _not_fetched(name, error) from error
    except (OSError, datasets.exceptions.DatasetsError, RuntimeError) as error:
        raise _not_fetched(name, error) from error


def _not_fetched(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(
        f"the data set cannot be fetched: {reason}",
        code="D023",
        where=name,
        fix=f"open https://huggingface.co/datasets/{name}, or give a file: fedit-client data add rows.jsonl"
        if not Path(name).exists()
        else "give its files one by one: fedit-client data add FILE",
    )


def _chosen(splits: dict[str, Any], name: str, notes: list[str]) -> Any:
    if len(splits) > 1 and _FIRST_SPLIT not in splits:
        lines = "\n".join(f"fedit-client data add {name}:{split}" for split in splits)
        raise DataError(f"the data set has the splits {', '.join(splits)}", code="D024", where=name, fix=lines)
    split = _FIRST_SPLIT if _FIRST_SPLIT in splits else next(iter(splits))
    left = [other for other in splits if other != split]
    if left:
        notes.append(f"split {split} of {name}; left out: {', '.join(left)}")
    return splits[split]
