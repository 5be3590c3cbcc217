"""The background service, if there is one: installed, running, or failed."""

from collections.abc import Iterator

from fedit_client.doctor.finding import Finding, note, ok, warning
from fedit_client.membership.joined import Membership
from fedit_client.service.systems import ServiceSystem
from fedit_protocol.errors import FeditError


def check_service(manager: ServiceSystem, membership: Membership | None) -> Iterator[Finding]:
    """Yield what the system's manager says of this client's service; it is asked only if one is installed."""
    try:
        installed, state = manager.file.exists(), manager.state()
    except (FeditError, OSError) as error:
        yield warning(
            "service", f"{manager.name} cannot be asked: {error}", "it may not run", "fedit-client service status"
        )
        return
    if not installed:
        yield note("service", "not installed: this client runs while `fedit-client run` does")
    elif membership is None:
        yield warning(
            "service", f"{state}, but nothing is joined", "it has nothing to do", "fedit-client service uninstall"
        )
    elif "fail" in state or "inactive" in state:
        yield warning("service", f"installed, and {state} ({manager.name})", "no round is taken part in",
                      "fedit-client service install")  # fmt: skip
    else:
        yield ok("service", f"{state} ({manager.name})")
