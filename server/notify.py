"""Tells whoever started the process that it serves: the sd_notify protocol of systemd.

Knows only the variable NOTIFY_SOCKET; without it there is nobody to tell. See sd_notify(3).
"""

import os
import socket
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Sends `state` and this process's id; whoever does not listen any more is no error."""
    address = environment.get(VARIABLE, "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(f"{state}\nMAINPID={os.getpid()}".encode())
        except OSError:
            pass  # the supervisor has gone, and the signal it sent says more
