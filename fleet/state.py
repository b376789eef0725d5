"""What a supervisor leaves in its folder for the commands that come after it."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet.local import Fleet
from fleet.plan import Ports
from fleet.process import answers

FOLDER = Path("build/fleet")
STATE = FOLDER / "state.json"
LOG = FOLDER / "fleet.log"


def write_state(
    profile: str, fleet: Fleet, skipped: dict[str, str], doing: str, done: Sequence[str]
) -> None:
    """`doing` and `done`: see fleet/orders.py."""
    state = {
        "pid": os.getpid(),
        "profile": profile,
        "doing": doing,
        "done": list(done),
        "skipped": skipped,
        "processes": [
            {"name": p.program.name, "address": p.program.address, "ready": p.program.ready}
            for p in fleet.processes
        ],
    }
    beside = STATE.with_suffix(".new")
    beside.write_text(json.dumps(state))
    beside.rename(STATE)


def read_state() -> dict[str, Any]:
    state: dict[str, Any] = json.loads(STATE.read_text())
    return state


def supervisor_id() -> int | None:
    """The process id of a running supervisor of this folder; a stale file is none."""
    try:
        pid = int(read_state()["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError):
        return None
    return pid if b"fleet" in words and b"supervise" in words else None


async def health(state: dict[str, Any]) -> dict[str, bool]:
    names = [process["name"] for process in state["processes"]]
    found = await asyncio.gather(*(answers(process["ready"]) for process in state["processes"]))
    return dict(zip(names, found, strict=True))


def hints(profile: str) -> str:
    """What can be done with a fleet that is up."""
    door, curl, client = f"localhost:{Ports().door}", "http", ""
    if profile == "edge":
        key, authority = (FOLDER / "key").read_text().strip(), FOLDER / "certs" / "ca.pem"
        curl = f"--cacert {authority} -H 'x-api-key: {key}' https"
        client = f" --ca {authority} --api-key {key}"
    return (
        f"\n  .venv/bin/speech-emotion analyze --sample --server {door}{client}\n"
        f"  curl --data-binary @YOUR.wav {curl}://{door}/api/v1/analyze:upload\n"
        "  API description: /openapi.json; logs: make logs; new replicas: make restart; "
        "end: make down"
    )
