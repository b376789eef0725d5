"""grpc.health.v1: tells the truth about each service and, under "", about the whole."""

from collections.abc import Iterable

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

NAME = health.SERVICE_NAME


class Health:
    """NOT_SERVING until told otherwise, and for ever after `withdraw`."""

    def __init__(self, server: grpc.aio.Server, services: Iterable[str]) -> None:
        self._names = ("", *services)
        self._servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        add_HealthServicer_to_server(self._servicer, server)

    async def announce(self, *, serving: bool) -> None:
        """Tells everyone who asks, and everyone who watches."""
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)

    async def withdraw(self) -> None:
        """NOT_SERVING, for good: the process is about to end."""
        await self._servicer.enter_graceful_shutdown()
