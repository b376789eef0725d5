"""`python -m fleet up | down | status | restart | restart-envoy | logs`: what `make up` runs."""

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

from yaml import YAMLError

from fleet.companions import companions, sharing
from fleet.compose import BadEdit, compose
from fleet.edge import equip
from fleet.local import START_PATIENCE, STOP_PATIENCE, Fleet
from fleet.plan import PROFILES, Ports, default_ports, replica
from fleet.process import Died, answers

FOLDER = Path("build/fleet")
STATE = FOLDER / "state.json"
LOG = FOLDER / "fleet.log"
STOP = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    chosen = _parse()
    commands: dict[str, Callable[[], int]] = {
        "up": _up,
        "supervise": lambda: asyncio.run(_supervise(chosen)),
        "down": _down,
        "status": _status,
        "restart": lambda: _tell(
            signal.SIGHUP, "The replicas are being replaced one after another"
        ),
        "restart-envoy": lambda: _tell(
            signal.SIGUSR1, "A new Envoy takes over, with envoy/envoy.yaml as it is now"
        ),
        "logs": _logs,
    }
    sys.exit(commands[chosen.command]())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fleet", description=__doc__)
    commands = ["up", "down", "status", "restart", "restart-envoy", "logs", "supervise"]
    parser.add_argument("command", choices=commands)
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
    fleet = Fleet(
        FOLDER,
        ports,
        _configuration(variants),
        replicas=[
            replica(n, ports, [*sharing(others), *chosen.flags]) for n in range(chosen.replicas)
        ],
        workers=min(os.cpu_count() or 1, 4),
        companions=others,
        write=_writer(sys.stdout),
    )
    orders: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(number, orders.put_nowait, number)
    async with fleet:
        _write_state(chosen.profile, fleet, skipped)
        while (order := await _next_order(orders, fleet, variants)) is not None:
            _write_state(chosen.profile, fleet, skipped, done=order)
    STATE.unlink(missing_ok=True)
    return 0


def _configuration(variants: Sequence[str]) -> dict[str, Any]:
    config = compose(variants)
    if variants:
        equip(config, FOLDER)
    return config


async def _next_order(
    orders: "asyncio.Queue[signal.Signals]", fleet: Fleet, variants: Sequence[str]
) -> str | None:
    """Obeys a signal, unless one to stop comes meanwhile; what was done, or None: stop."""
    order = await orders.get()
    if order in STOP:
        return None
    work = asyncio.create_task(_obey(order, fleet, variants))
    while not work.done():
        following = asyncio.create_task(orders.get())
        await asyncio.wait({work, following}, return_when=asyncio.FIRST_COMPLETED)
        if following.done() and following.result() in STOP:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return None
        following.cancel()
    return work.result()


async def _obey(order: signal.Signals, fleet: Fleet, variants: Sequence[str]) -> str:
    if order is signal.SIGHUP:
        await fleet.roll()
        return "rolled"
    try:
        await fleet.restart_envoy(_configuration(variants))
    except (BadEdit, Died, OSError, YAMLError) as error:
        print(f"fleet      | Envoy was not restarted: {error}", flush=True)
        return "refused"
    return "envoy restarted"


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write


def _write_state(profile: str, fleet: Fleet, skipped: dict[str, str], *, done: str = "") -> None:
    state = {
        "pid": os.getpid(),
        "profile": profile,
        "done": done,  # the last order
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


def _tell(order: signal.Signals, what: str) -> int:
    pid = _supervisor()
    if not pid:
        print("No fleet is up.", file=sys.stderr)
        return 1
    os.kill(pid, order)
    print(f"{what}; `make logs` shows it.")
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
