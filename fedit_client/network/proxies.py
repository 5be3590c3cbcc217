"""The proxy that this machine's environment names for a host; the connection through it stays encrypted end to end."""

import ipaddress
import urllib.request


def proxy_for(host: str, no_proxy: str = "") -> str | None:
    """Return the HTTP proxy for HTTPS to a host (`HTTPS_PROXY`, `NO_PROXY`, the system's settings), or None.

    `no_proxy` are hosts and domains by comma, as in `NO_PROXY`, which the owner's settings add (`network.no_proxy`).
    A proxy that opens connections cannot be used: the federation's certificate would not arrive (T002, N007).
    """
    if _is_here(host) or urllib.request.proxy_bypass(host):
        return None
    if any(_is_within(host.lower(), name.strip().lower()) for name in no_proxy.split(",")):
        return None
    proxies = urllib.request.getproxies()
    found = proxies.get("https") or proxies.get("all")
    return found if found and found.startswith(("http://", "https://")) else None


def _is_within(host: str, name: str) -> bool:
    """Whether a host is this one, or lies in this domain."""
    return name == "*" or (bool(name) and f".{host}".endswith(f".{name.removeprefix('.')}"))


def _is_here(host: str) -> bool:
    """Whether a host is this machine itself, which no proxy can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
