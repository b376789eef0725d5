"""Ports that nobody listens on, for fleets beside the usual one."""

import random
import socket
from collections.abc import Iterator

from fleet.plan import HOST, Ports

RANGE = range(15_000, 30_000)  # below what Linux gives to outgoing connections


def free_ports() -> Iterator[int]:
    """Different ports in random order."""
    for port in random.sample(RANGE, len(RANGE)):
        if not _listens(port):
            yield port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def taken(ports: Ports) -> list[int]:
    """Those on which somebody listens."""
    single = (ports.door, ports.admin, ports.metrics, ports.redis, ports.prometheus)
    return [port for port in (*single, *ports.replicas, *ports.probes) if _listens(port)]


def beside(replicas: int) -> Ports:
    """Ports for a whole fleet."""
    free = free_ports()
    return Ports(
        door=next(free),
        admin=next(free),
        metrics=next(free),
        replicas=tuple(next(free) for _ in range(replicas)),
        probes=tuple(next(free) for _ in range(replicas)),
        redis=next(free),
        prometheus=next(free),
    )
