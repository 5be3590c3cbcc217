"""Why rows cannot be dealt as asked: the words of D041 and D043, with the nearest thing that works."""

from fedit_protocol.errors import DataError


def too_few(why: str, again: str = "--clients 10") -> DataError:
    """Return what to raise where clients, rows and form do not fit each other; `again` are options that would."""
    return DataError(f"clients and rows do not fit: {why}", code="D041", fix=f"fedit-client partition DATA {again}",
                     again=again)  # fmt: skip


def unmet_minimum(least: int, possible: int, form: str, clients: int, why: str) -> DataError:
    """Return what to raise where not every client can have as many rows as was asked for; `possible` is what can be."""
    again = f"--by {form}:min={possible}" if possible else f"--clients {max(1, clients // 10)}"
    return DataError(f"not every client can have {least:,} rows: {why}", code="D043",
                     fix=f"fedit-client partition DATA {again}", again=again)  # fmt: skip
