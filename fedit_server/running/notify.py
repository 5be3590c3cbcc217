"""Tells systemd that the server is ready, or stops (sd_notify(3)): one datagram, nothing without NOTIFY_SOCKET."""

import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1` or the like, and say whether somebody was there to be told.

    The library for it has had no release for years, and the protocol is one line to one socket.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    place = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), place)
        except OSError:  # the manager is gone, or not ours: no reason to stop serving
            return False
    return True
