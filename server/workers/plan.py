"""What every worker gets: flags, ports, threads. Starts nothing."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from server.config import Settings
from server.listening import PortTaken

SLACK = 10.0
"""Seconds beyond its own time to drain after which a worker is killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How each worker differs from the others."""

    command: Sequence[str]
    count: int
    port: int  # 0: whatever is free, for each its own
    shared: bool  # all on one port
    metrics_port: int  # the first of count + 1, or 0
    threads: int  # of each model
    patience: float  # s, that a stopped worker has

    def flags(self, slot: int, metrics_port: int) -> list[str]:
        """What is added to the command; later flags win."""
        port = self.port if self.shared or not self.port else self.port + slot
        numbers = {"workers": 1, "port": port, "metrics-port": metrics_port}
        flags = [f"--{name}={number}" for name, number in numbers.items()]
        return [*flags, f"--threads={self.threads}"]


def plan_for(settings: Settings, command: Sequence[str], *, cores: int, port: int) -> Plan:
    """Divides the cores, and leaves a metrics port for a worker that replaces another."""
    return Plan(
        command=command,
        count=settings.workers,
        port=port,
        shared=settings.share_port,
        metrics_port=settings.metrics_port,
        threads=settings.threads or max(1, cores // settings.workers),
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
