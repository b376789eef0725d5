"""`python -m fleet up | down | status | restart | restart-envoy | logs`: what `make up` runs."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from yaml import YAMLError

from fleet.companions import companions, sharing
from fleet.compose import BadEdit, compose, variants
from fleet.edge import equip
from fleet.local import START_PATIENCE, STOP_PATIENCE, Fleet
from fleet.orders import DOING, RESTART_ENVOY, ROLL, heard, obey
from fleet.plan import PROFILES, default_ports, replica
from fleet.ports import taken
from fleet.process import Died, first_of
from fleet.state import (
    FOLDER,
    LOG,
    STATE,
    health,
    hints,
    read_state,
    supervisor_id,
    write_state,
)


def main() -> None:
    chosen = _parse()
    commands: dict[str, Callable[[], int]] = {
        "up": lambda: _up(chosen),
        "supervise": lambda: _supervised(chosen),
        "down": _down,
        "status": _status,
        "restart": lambda: _tell(ROLL),
        "restart-envoy": lambda: _tell(RESTART_ENVOY),
        "logs": _logs,
    }
    sys.exit(commands[chosen.command]())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fleet", description=__doc__)
    commands = ["up", "down", "status", "restart", "restart-envoy", "logs", "supervise"]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--profile", choices=PROFILES, default="local")
    local = [name for name in variants() if name != "kubernetes"]  # which is open to all addresses
    parser.add_argument("--variant", action="append", default=[], choices=local)
    parser.add_argument("--replicas", type=_number, default=3)
    parser.epilog = "What follows -- are flags of the replicas, as of speech-emotion-server."
    ours, flags = split_flags(sys.argv[1:])
    chosen = parser.parse_args(ours, argparse.Namespace(flags=flags))
    if chosen.replicas == 1 and {"canary", "shadow"} & set(chosen.variant):
        parser.error("argument --replicas: the last one is the canary, so there must be two")
    return chosen


def _number(word: str) -> int:
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is no number from 1 on")
    return int(word)


def split_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is before `--`, and what is after it."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _up(chosen: argparse.Namespace) -> int:
    """Starts a supervisor in the background and waits until everything is ready."""
    if supervisor_id():
        print("The fleet is up already; `make down` ends it.", file=sys.stderr)
        return 1
    if busy := taken(default_ports(chosen.replicas)):
        print(f"Somebody listens on port {', '.join(map(str, busy))} already.", file=sys.stderr)
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
        last = LOG.read_text().splitlines()[-1:] or ["The supervisor said nothing."]
        print(f"{last[0]}\nAll that was said is in {LOG}.", file=sys.stderr)
        return 1
    return _status()


def _supervised(chosen: argparse.Namespace) -> int:
    """What went wrong is the last line of the log."""
    try:
        return asyncio.run(_supervise(chosen))
    except (BadEdit, Died, OSError, YAMLError, ExceptionGroup) as error:
        print(f"The fleet did not start: {first_of(error)}", flush=True)
        return 1


async def _supervise(chosen: argparse.Namespace) -> int:
    ports = default_ports(chosen.replicas)
    others, skipped = companions(ports, FOLDER)
    applied = [*([] if chosen.profile == "local" else [chosen.profile]), *chosen.variant]
    fleet = Fleet(
        FOLDER,
        ports,
        _configuration(applied),
        replicas=[
            replica(n, ports, [*sharing(others), *chosen.flags]) for n in range(chosen.replicas)
        ],
        workers=min(os.cpu_count() or 1, 4),
        companions=others,
        write=_writer(sys.stdout),
    )
    orders = heard()
    async with fleet:
        tell = partial(write_state, chosen.profile, fleet, skipped)
        await obey(orders, fleet, partial(_configuration, applied), tell)
    STATE.unlink(missing_ok=True)
    return 0


def _configuration(applied: Sequence[str]) -> dict[str, Any]:
    config = compose(applied)
    if applied:
        equip(config, FOLDER)
    return config


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write


def _down() -> int:
    pid = supervisor_id()
    if not pid:
        print("No fleet is up.")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * STOP_PATIENCE
    while Path(f"/proc/{pid}").exists() and supervisor_id() == pid:
        if time.monotonic() > deadline:
            print(f"Process {pid} has not ended; see {LOG}.", file=sys.stderr)
            return 1
        time.sleep(0.1)
    print("The fleet is down.")
    return 0


def _tell(order: signal.Signals) -> int:
    """Tells the supervisor, and waits until it is done."""
    pid = supervisor_id()
    if not pid:
        print("No fleet is up.", file=sys.stderr)
        return 1
    before = read_state()
    if before["doing"]:
        print(f"{before['doing']}; until that is done, nothing else is.", file=sys.stderr)
        return 1
    os.kill(pid, order)
    print(f"{DOING[order]} ...", flush=True)
    while supervisor_id() == pid:
        if new := read_state()["done"][len(before["done"]) :]:
            if new[0]:
                print(f"That failed; what was not replaced goes on. {new[0]}", file=sys.stderr)
                return 1
            print("Done.")
            return 0
        time.sleep(0.1)
    print("The fleet ended.", file=sys.stderr)
    return 1


def _status() -> int:
    if not supervisor_id():
        print("No fleet is up.")
        return 1
    state = read_state()
    healthy = asyncio.run(health(state))
    if state["doing"]:
        print(f"{state['doing']} ...")
    for process in state["processes"]:
        mark = "ready" if healthy[process["name"]] else "NOT READY"
        print(f"{process['name']:<12} {process['address']:<18} {mark}")
    for name, reason in state["skipped"].items():
        print(f"{name:<12} {'-':<18} skipped: {reason}")
    print(hints(state["profile"]))
    return 0 if all(healthy.values()) else 1


def _logs() -> int:
    if not supervisor_id():
        print(f"No fleet is up; what the last one said is in {LOG}.", file=sys.stderr)
        return 1
    try:
        return subprocess.call(["tail", "-n", "100", "-F", str(LOG)])
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    main()
