"""What every worker gets: its ports, and time to stop. Starts nothing."""

import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server.config import PortTaken, Settings

SLACK = 10.0
"""Seconds beyond its own time to drain after which a worker is killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How each worker differs from the others."""

    count: int
    port: int  # 0: whatever is free, for each its own
    shared: bool  # all on one port
    metrics_port: int  # the first of count + 1, one for who replaces another; or 0
    patience: float  # s, that a stopped worker has

    def order(self, slot: int, used: Collection[int]) -> dict[str, int]:
        """The settings of a worker that are its own; `used` are the metrics ports of others."""
        port = self.port if self.shared or not self.port else self.port + slot
        metrics_ports = range(self.metrics_port, self.metrics_port + self.count + 1)
        free = next(each for each in metrics_ports if each not in used) if self.metrics_port else 0
        return {"port": port, "metrics_port": free}


def plan_for(settings: Settings, *, port: int) -> Plan:
    return Plan(
        count=settings.workers,
        port=port,
        shared=settings.share_port,
        metrics_port=settings.metrics_port,
        patience=settings.drain_notice_seconds + settings.drain_grace_seconds + SLACK,
    )


@contextmanager
def reserved(settings: Settings) -> Iterator[int]:
    """The port for all workers, held so that nobody else takes it between two of them.

    Raises PortTaken.
    """
    if not settings.share_port:
        yield settings.port
        return
    family, kind, _, _, address = socket.getaddrinfo(
        settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM
    )[0]
    try:
        with socket.socket(family, kind) as probe:  # anybody who listens without sharing?
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise PortTaken(f"Cannot listen on {where}; is another server there?") from error
    with socket.socket(family, kind) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
        yield holder.getsockname()[1]
