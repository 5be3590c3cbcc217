"""What schemathesis loads: every request comes from another address, for one alone may not ask so often."""

import secrets
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: object, case: Any, _kwargs: object) -> None:
    """Name an address as the proxy that the server trusts in this test would."""
    hops = secrets.token_bytes(3)
    case.headers["X-Forwarded-For"] = f"10.{hops[0]}.{hops[1]}.{hops[2]}"
