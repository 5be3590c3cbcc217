"""A launchd job of one user (launchd.plist(5)). Parsed in the tests; not run on a Mac yet."""

import plistlib
from typing import Any, Final
from xml.parsers.expat import ExpatError

from fedit_client.service.plan import ServicePlan

LABEL: Final = "org.fedit.client"


def plist(plan: ServicePlan) -> bytes:
    """Return the property list. It starts at log-in, again after a failure, and runs in the background class."""
    job: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": list(plan.command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 60,
        "ExitTimeOut": 30,
        "ProcessType": "Background",
        "Nice": 10,
        "LowPriorityIO": True,
        "Umask": 0o077,
        "StandardOutPath": str(plan.log),
        "StandardErrorPath": str(plan.log),
    }
    return plistlib.dumps(job)


def words_of(content: bytes) -> list[str]:
    """Return the command line of a property list; raises ValueError for another file."""
    try:
        return [str(word) for word in plistlib.loads(content)["ProgramArguments"]]
    except (ExpatError, KeyError, TypeError) as error:
        raise ValueError("this is no launchd job") from error
