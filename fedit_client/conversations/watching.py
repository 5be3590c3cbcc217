"""`status --watch`: what the running client does, said again whenever it changes."""

from collections.abc import Callable, Iterator
from typing import Any

from fedit_client.home.paths import Paths
from fedit_client.manners.control import Now, Wish, read_now, read_wish
from fedit_client.network.patience import utc_now
from fedit_client.running.doing import doing_lines

_TENTHS = 10


def changes(paths: Paths, wait: Callable[[], None]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the state as event fields and as lines, first now and then after each `wait` that changed it."""
    told: object = None
    while True:
        now, wish = read_now(paths), read_wish(paths)
        if (seen := _shape(now, wish)) != told:
            told = seen
            lines = doing_lines(now, wish, utc_now())
            fields = {} if now is None else now.model_dump(mode="json", exclude_none=True, exclude={"schema_version"})
            yield (
                {"kind": "status", "running": now is not None, **fields, "text": " · ".join(lines)},
                [" · ".join(lines)],
            )
        wait()


def _shape(now: Now | None, wish: Wish) -> object:
    """What has to differ for a new line: not each byte and second."""
    if now is None:
        return wish.paused, wish.until
    tenth = None if now.progress is None else int(now.progress * _TENTHS)
    return now.run, now.activity, now.reason, now.round_no, now.stage, tenth, now.finishing, now.throttled
