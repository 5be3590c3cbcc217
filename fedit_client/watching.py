"""`status --watch`: what the running client does, said again whenever it changes."""

from collections.abc import Callable, Iterator
from typing import Any

from fedit_client.control import Now, read_now, read_wish
from fedit_client.doing import doing_lines
from fedit_client.paths import Paths
from fedit_client.patience import utc_now

_TENTHS = 10


def changes(paths: Paths, wait: Callable[[], None]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the state as event fields and as lines, first now and then after each `wait` that changed it."""
    told: object = None
    while True:
        now = read_now(paths)
        if (seen := _shape(now)) != told:
            told = seen
            lines = doing_lines(now, read_wish(paths), utc_now())
            fields = {} if now is None else now.model_dump(mode="json", exclude_none=True, exclude={"schema_version"})
            yield {"kind": "status", "running": now is not None, **fields, "text": lines[0]}, [" · ".join(lines)]
        wait()


def _shape(now: Now | None) -> object:
    """What has to differ for a new line: not each byte and second."""
    if now is None:
        return "not running"
    tenth = None if now.progress is None else int(now.progress * _TENTHS)
    return now.run, now.activity, now.reason, now.round_no, now.stage, tenth, now.finishing, now.throttled
