"""Numbers in sentences: one way of saying how many, for every text that a person reads."""


def counted(count: int, one: str, many: str = "") -> str:
    """Return `1 row`, `2 rows`, `1,284 rows`; `many` where an s is not enough."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
