"""Tasks that live and fail together, and end with one error that a person can read instead of a group of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedit_protocol.errors import SecurityError


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """An asyncio.TaskGroup whose failure is raised as its first cause; a cancellation stays a cancellation."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        # A failure at the moment of a cancellation must not swallow it (until Python 3.13 a TaskGroup does).
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError from failures
        raise first_cause(failures) from failures


def first_cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that a person should see: an alarm before anything else, then whatever came first."""
    flat = [
        first_cause(failure) if isinstance(failure, BaseExceptionGroup) else failure for failure in failures.exceptions
    ]
    alarms = [failure for failure in flat if isinstance(failure, SecurityError)]
    return (alarms or flat)[0]
