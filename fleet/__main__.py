"""`python -m fleet up | down | status | restart | logs`: what `make up` and its friends run."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from fleet.compose import compose
from fleet.edge import equip
from fleet.local import START_PATIENCE, STOP_PATIENCE, Fleet
from fleet.plan import PROFILES, Ports, companions, default_ports, envoy, replica
from fleet.process import answers

FOLDER = Path("build/fleet")
STATE = FOLDER / "state.json"
LOG = FOLDER / "fleet.log"


def main() -> None:
    chosen = _parse()
    commands: dict[str, Callable[[], int]] = {
        "up": _up,
        "supervise": lambda: asyncio.run(_supervise(chosen)),
        "down": _down,
        "status": _status,
        "restart": _restart,
        "logs": _logs,
    }
    sys.exit(commands[chosen.command]())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fleet", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "restart", "logs", "supervise"])
    parser.add_argument("--profile", choices=PROFILES, default="local")
    parser.add_argument("--variant", action="append", default=[], help="of envoy/variants")
    parser.add_argument("--replicas", type=int, default=3)
    parser.epilog = "What follows -- are flags of the replicas, as of speech-emotion-server."
    ours, flags = split_flags(sys.argv[1:])
    return parser.parse_args(ours, argparse.Namespace(flags=flags))


def split_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is before `--`, and what is after it."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _up() -> int:
    """Starts a supervisor in the background and waits until everything is ready."""
    if _supervisor():
        print("The fleet is up already; `make down` ends it.", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    STATE.unlink(missing_ok=True)
    arguments = [word if word != "up" else "supervise" for word in sys.argv[1:]]
    with LOG.open("w") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "fleet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_PATIENCE
    while not STATE.exists() and supervisor.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if not STATE.exists():
        print(f"The fleet did not start; the end of {LOG}:", file=sys.stderr)
        print(*LOG.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)
        return 1
    return _status()


async def _supervise(chosen: argparse.Namespace) -> int:
    ports = default_ports(chosen.replicas)
    others, skipped = companions(ports, FOLDER)
    variants = [*([] if chosen.profile == "local" else [chosen.profile]), *chosen.variant]
    config = compose(variants)
    if variants:
        equip(config, FOLDER)
    fleet = Fleet(
        FOLDER,
        ports,
        config,
        replicas=[replica(n, ports, chosen.flags) for n in range(chosen.replicas)],
        envoy=envoy(ports, FOLDER, workers=min(os.cpu_count() or 1, 4)),
        companions=others,
        write=_writer(sys.stdout),
    )
    stop, roll = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, roll.set)
    async with fleet:
        _write_state(chosen.profile, fleet, skipped)
        rolling = asyncio.create_task(_roll_when(roll, fleet, chosen.profile, skipped))
        await stop.wait()
        rolling.cancel()
    STATE.unlink(missing_ok=True)
    return 0


async def _roll_when(
    asked: asyncio.Event, fleet: Fleet, profile: str, skipped: dict[str, str]
) -> None:
    while True:
        await asked.wait()
        await fleet.roll()
        asked.clear()
        _write_state(profile, fleet, skipped, rolled=True)


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write


def _write_state(
    profile: str, fleet: Fleet, skipped: dict[str, str], *, rolled: bool = False
) -> None:
    state = {
        "pid": os.getpid(),
        "profile": profile,
        "rolled": rolled,
        "skipped": skipped,
        "processes": [
            {"name": p.program.name, "address": p.program.address, "ready": p.program.ready}
            for p in fleet.processes
        ],
    }
    beside = STATE.with_suffix(".new")
    beside.write_text(json.dumps(state))
    beside.rename(STATE)


def _supervisor() -> int | None:
    """The process id of a running supervisor of this folder; a stale file is none."""
    try:
        pid = int(json.loads(STATE.read_text())["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError):
        return None
    return pid if b"fleet" in words and b"supervise" in words else None


def _down() -> int:
    pid = _supervisor()
    if not pid:
        print("No fleet is up.")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * STOP_PATIENCE
    while Path(f"/proc/{pid}").exists() and _supervisor() == pid:
        if time.monotonic() > deadline:
            print(f"Process {pid} has not ended; see {LOG}.", file=sys.stderr)
            return 1
        time.sleep(0.1)
    print("The fleet is down.")
    return 0


def _restart() -> int:
    pid = _supervisor()
    if not pid:
        print("No fleet is up.", file=sys.stderr)
        return 1
    os.kill(pid, signal.SIGHUP)
    print("The replicas are being replaced one after another; `make logs` shows it.")
    return 0


def _status() -> int:
    if not _supervisor():
        print("No fleet is up.")
        return 1
    state: dict[str, Any] = json.loads(STATE.read_text())
    healthy = asyncio.run(_health(state))
    for process in state["processes"]:
        mark = "ready" if healthy[process["name"]] else "NOT READY"
        print(f"{process['name']:<12} {process['address']:<18} {mark}")
    for name, reason in state["skipped"].items():
        print(f"{name:<12} {'-':<18} skipped: {reason}")
    print(_hints(state["profile"]))
    return 0 if all(healthy.values()) else 1


async def _health(state: dict[str, Any]) -> dict[str, bool]:
    names = [process["name"] for process in state["processes"]]
    found = await asyncio.gather(*(answers(process["ready"]) for process in state["processes"]))
    return dict(zip(names, found, strict=True))


def _hints(profile: str) -> str:
    ports = Ports()
    if profile == "edge":
        key = (FOLDER / "key").read_text().strip()
        extra = f"--cacert {FOLDER}/certs/ca.pem -H 'x-api-key: {key}' https"
    else:
        extra = "http"
    return (
        f"\n  curl --data-binary @YOUR.wav {extra}://localhost:{ports.door}/api/v1/analyze:upload\n"
        f"  API description: /openapi.json; logs: make logs; new replicas: make restart; "
        "end: make down"
    )


def _logs() -> int:
    try:
        return subprocess.call(["tail", "-n", "100", "-F", str(LOG)])
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    main()
