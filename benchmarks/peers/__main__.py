"""Every peer with the same model, generator and bodies, one after the other, in one run.

    python -m benchmarks.peers [--only NAME ...] [--seconds S] [--sizes BYTES ...]

A peer that cannot be installed or started is skipped, with the reason. Environments are made
under build/peers at the first run (3.5 GB for all).
"""

import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.catalogue import PEERS, Peer, target
from benchmarks.results import bars, publish
from benchmarks.servers import CannotStart, analyze, free_port, ours, process
from benchmarks.traffic import Load, Outcome, Target, drive

HOME = Path("build/peers")
SCRIPTS = Path(__file__).parent


class CannotInstall(Exception):
    """The text says why."""


def python_of(peer: Peer) -> str:
    """The interpreter of the peer's environment, made if it is not there. Raises CannotInstall."""
    if peer.needs and not shutil.which(peer.needs):
        raise CannotInstall(f"needs {peer.needs}")
    folder = HOME / (peer.home or peer.name)
    python = str(folder.absolute() / "bin/python")
    if (folder / "READY").exists():
        return python
    maker = peer.python or sys.executable
    if not Path(maker).exists():
        raise CannotInstall(f"needs {maker}")
    for command in (
        [maker, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "-q", *peer.packages],
    ):
        if subprocess.run(command, check=False).returncode:
            raise CannotInstall(f"{' '.join(command[:4])} failed")
    (folder / "READY").touch()
    return python


def start_of(name: str, port: int) -> tuple[list[str], float]:
    """The command, and how long to let the server settle. Raises CannotInstall."""
    if name == "bare":
        return [sys.executable, "-m", "benchmarks.peers.bare", str(port)], 0.5
    if name == "ours":
        return ours(port, "--queue-delay-ms=5"), 0.5
    peer = next(one for one in PEERS if one.name == name)
    python = python_of(peer)
    if name == "bentoml":
        service = ["-m", "bentoml", "serve", "serve_bentoml:Front", "--host", "127.0.0.1"]
        return [python, *service, "--port", str(port)], peer.settle
    return [python, str(SCRIPTS / peer.script), str(port)], peer.settle


def target_of(name: str, port: int, size: int) -> Target:
    if name in {"bare", "ours"}:
        return analyze(port, size)
    return target(next(one for one in PEERS if one.name == name), port, size)


def measure(name: str, sizes: Sequence[int], load: Load) -> dict[int, Outcome]:
    """Raises CannotInstall or CannotStart."""
    port = free_port()
    command, settle = start_of(name, port)
    apart = name not in {"bare", "ours"}
    variables = {"PYTHONPATH": str(SCRIPTS), "BENTOML_DO_NOT_TRACK": "true"} if apart else {}
    variables |= {"RAY_USAGE_STATS_ENABLED": "0"}
    with process(
        name,
        command,
        port,
        settle=settle,
        environment=variables,
        folder=SCRIPTS if apart else None,
        quiet=not apart,
    ) as pid:
        outcomes = {}
        for size in sizes:
            drive(target_of(name, port, size), Load(1.0, warm_up=0.5))
            outcomes[size] = drive(target_of(name, port, size), load, server=pid)
        return outcomes


def main() -> None:
    names = ["bare", "ours", *(peer.name for peer in PEERS)]
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--sizes", type=int, nargs="*", default=[160_000, 1_000])
    chosen = parser.parse_args()
    seen: dict[str, dict[int, Outcome]] = {}
    skipped = []
    for name in chosen.only:
        try:
            seen[name] = measure(name, chosen.sizes, Load(chosen.seconds))
        except (CannotInstall, CannotStart) as reason:
            skipped.append(f"{name}: {reason}")
    rows = []
    for size in chosen.sizes:
        base = seen["ours"][size].cpu_ms if "ours" in seen else 0.0
        for name, outcomes in seen.items():
            rows.append(_row(name, size, outcomes[size], base))
    head = [
        "server",
        "bytes",
        "CPU ms a call",
        "ours / it",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "RSS MB",
        "not OK",
    ]
    publish(
        "Peers: processor time of a call, closed loop, 64 callers", head, rows, "\n".join(skipped)
    )
    size = chosen.sizes[0]
    bars(
        "peers",
        list(seen),
        [seen[name][size].cpu_ms for name in seen],
        f"CPU ms a call of {size} bytes",
    )


def _row(name: str, size: int, outcome: Outcome, base: float) -> list[object]:
    bad = {kind: count for kind, count in outcome.outcomes.items() if kind != "OK"}
    if not outcome.served:
        return [name, size, "-", "-", 0, "-", "-", f"{outcome.resident:.0f}", bad]
    quantiles = [f"{outcome.quantile(q):.0f}" for q in (50, 99)]
    ratio = f"{base / outcome.cpu_ms:.2f}" if base else "-"
    return [
        name, size, f"{outcome.cpu_ms:.3f}", ratio, f"{outcome.rate:.0f}", *quantiles,
        f"{outcome.resident:.0f}", bad or 0,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
