"""How to reach a server: address, credentials, retries, limits. The same for sync and asyncio."""

import json
import math
from dataclasses import dataclass
from typing import Any

import grpc

from .errors import DeadlineExceeded, InvalidRequest

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 30.0
"""Seconds for one call, retries included."""

MAX_TIMEOUT = 365 * 86_400.0
"""Seconds; a deadline later than gRPC's clock goes would have passed at once."""

MAX_MESSAGE_BYTES = 64 * 2**20
"""Room for one minute of frame embeddings: 3000 frames x 1024 x 4 bytes = 12 MB, and some."""

MAX_RETRIES = 4
"""gRPC itself stops after five attempts."""

ServerTLS = bool | grpc.ChannelCredentials


def service_config(retries: int) -> dict[str, Any]:
    """Which failures gRPC retries, and when: 0.1 s, doubled, or what the server pushes back.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    """
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": "0.1s",
            "maxBackoff": "5s",
            "backoffMultiplier": 2,
            # CANCELLED: gRPC's servers say so to calls that arrive while they stop. A caller who
            # cancels is never retried.
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
        }
        config["methodConfig"] = [{"name": [{}], "retryPolicy": policy}]
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Everything but the calls; raises ValueError for what makes no sense."""

    target: str = DEFAULT_TARGET
    timeout: float = DEFAULT_TIMEOUT
    retries: int = 3
    api_key: str | None = None
    tls: ServerTLS = False
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        if not 0 <= self.retries <= MAX_RETRIES:
            raise ValueError(f"retries must be 0 to {MAX_RETRIES}, got {self.retries}")
        if not self.target.strip():
            raise ValueError("target must be HOST:PORT, got nothing")
        self.seconds(None)

    @property
    def options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.service_config", json.dumps(service_config(self.retries))),
            ("grpc.enable_retries", int(self.retries > 0)),
            # A request larger than this buffer (256 KiB by default) would never be retried.
            ("grpc.per_rpc_retry_buffer_size", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # Finds a dead connection under a long call. Servers end the connection of those who
            # ping much more often, or without calls.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # A server that restarts is found again in seconds, not after gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        if isinstance(self.tls, bool):
            return grpc.ssl_channel_credentials() if self.tls else None
        return self.tls

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self.api_key),) if self.api_key else ()

    def seconds(self, timeout: float | None) -> float:
        """Raises InvalidRequest for what is no time."""
        seconds = self.timeout if timeout is None else timeout
        if math.isnan(seconds) or seconds < 0:
            raise InvalidRequest(f"timeout is {seconds}, not seconds.", field="timeout")
        return min(seconds, MAX_TIMEOUT)


def poll_delay(left: float) -> float:
    """Seconds between two looks at a server that starts, of the `left` ones."""
    return min(0.1, left)


def not_ready(target: str, timeout: float) -> DeadlineExceeded:
    text = f"{target} was not ready within {timeout:g} s."
    return DeadlineExceeded(text, code="DEADLINE_EXCEEDED")
