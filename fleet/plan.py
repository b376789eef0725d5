"""What a fleet consists of: programs with their arguments, files and ports. Pure."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from fleet.compose import find

HOST = "127.0.0.1"
DRAIN_NOTICE = 2.2  # s: Envoy's health check interval and timeout, and a margin
PROFILES = ("local", "edge")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens; all on loopback."""

    door: int = 8080
    admin: int = 9901
    metrics: int = 9902
    replicas: tuple[int, ...] = (50051, 50052, 50053)
    probes: tuple[int, ...] = (9464, 9465, 9466)
    redis: int = 6380
    prometheus: int = 9090


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the fleet."""

    name: str
    arguments: tuple[str, ...]
    address: str
    ready: str  # an http URL that answers 200, or tcp://HOST:PORT
    environment: Mapping[str, str] = field(default_factory=dict)


def default_ports(replicas: int) -> Ports:
    return Ports(
        replicas=tuple(50051 + number for number in range(replicas)),
        probes=tuple(9464 + number for number in range(replicas)),
    )


def replica(
    number: int, ports: Ports, flags: Sequence[str] = (), *, module: str = "server"
) -> Program:
    """A server process; `module` takes the flags of `server` and maybe more."""
    port, probes = ports.replicas[number], ports.probes[number]
    cores = os.cpu_count() or 1
    return Program(
        name=f"replica-{number + 1}",
        arguments=(
            *(sys.executable, "-m", module, "--log-format", "json", "--trust-proxy"),
            *("--port", str(port), "--metrics-port", str(probes)),
            *("--drain-notice-seconds", str(DRAIN_NOTICE)),
            *("--threads", str(max(1, cores // len(ports.replicas)))),
            *flags,
        ),
        address=f"{HOST}:{port}",
        ready=f"http://{HOST}:{probes}/readyz",
    )


def envoy(
    ports: Ports,
    folder: Path,
    *,
    workers: int = 1,
    drain: float = 5.0,
    base_id: int | None = None,
    epoch: int = 0,
) -> Program:
    """Envoy with the configuration that `place` made in `folder`.

    `drain`: seconds in which connections are asked to end, before Envoy does; twice that before a
    successor ends it. `epoch` 1, 2, ... and the `base_id` that the first one wrote to
    `base_id_file`: it takes the listeners over from the one that runs.
    """
    if base_id is None:
        identity = ["--use-dynamic-base-id", "--base-id-path", str(base_id_file(folder))]
    else:
        identity = ["--base-id", str(base_id), "--restart-epoch", str(epoch)]
    return Program(
        name="envoy",
        arguments=(
            str(Path(sys.executable).with_name("envoy")),
            *("-c", str(folder / "envoy.json"), "--concurrency", str(workers)),
            *identity,
            *("--log-level", "warning"),
            *("--drain-time-s", str(ceil(drain)), "--parent-shutdown-time-s", str(2 * ceil(drain))),
            *("--file-flush-interval-msec", "500"),
        ),
        address=f"{HOST}:{ports.door}",
        ready=f"http://{HOST}:{ports.admin}/ready",
    )


def base_id_file(folder: Path) -> Path:
    """Where Envoy writes which shared memory it took."""
    return folder / "envoy.base-id"


def place(config: dict[str, Any], ports: Ports, folder: Path) -> None:
    """Moves a composed configuration to these ports, and its replicas' file to `folder`."""
    listeners = find(config, "static_resources/listeners")
    for name, port in (("main", ports.door), ("metrics", ports.metrics)):
        _set_port(find(listeners, f"{name}/address"), port)
    _set_port(config["admin"]["address"], ports.admin)
    clusters = find(config, "static_resources/clusters")
    _set_port(find(clusters, f"admin/{FIRST_ENDPOINT}"), ports.admin)
    for cluster in clusters:
        source = cluster.get("eds_cluster_config", {}).get("eds_config", {})
        if source:
            file = Path(source["path_config_source"]["path"]).with_suffix(".json").name
            path = str(folder / "endpoints" / file)
            watched = {"path": str(folder / "endpoints")}
            source["path_config_source"] = {"path": path, "watched_directory": watched}


def has_canary(config: dict[str, Any]) -> bool:
    """Whether a composed configuration sends some calls to a replica of another version."""
    return any(one["name"] == CANARY for one in find(config, "static_resources/clusters"))


CANARY = "speech-canary"
FIRST_ENDPOINT = "load_assignment/endpoints/0/lb_endpoints/0/endpoint/address"


def _set_port(address: dict[str, Any], port: int) -> None:
    address["socket_address"]["port_value"] = port


def endpoints(
    ports: Sequence[int], *, draining: Sequence[int] = (), cluster: str = "speech"
) -> str:
    """The file that tells Envoy of the replicas, as envoy/endpoints/replicas.yaml."""

    def entry(port: int) -> dict[str, Any]:
        address = {"socket_address": {"address": HOST, "port_value": port}}
        status = "DRAINING" if port in draining else "UNKNOWN"
        return {"endpoint": {"address": address}, "health_status": status}

    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [entry(port) for port in ports]}],
    }
    return json.dumps({"resources": [assignment]}, indent=1)
