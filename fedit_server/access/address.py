"""Under which address devices reach this server."""

from typing import Final

from fedit_server.config import ServerConfig, split_address
from fedit_server.keys.tls import lan_address

_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  compared with, not bound to


def advertised(config: ServerConfig, port: int) -> tuple[str, int]:
    """Return the host and port that invites name: `advertise`, else the listen address, else the LAN address."""
    if config.advertise:
        return split_address(config.advertise, default_port=port)
    return (config.host if config.host not in _EVERYWHERE else lan_address() or "127.0.0.1"), port
