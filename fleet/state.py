"""What a supervisor leaves in its folder for the commands that come after it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from fleet.local import Fleet
from fleet.plan import Ports
from fleet.process import answers

FOLDER = Path("build/fleet")
STATE = FOLDER / "state.json"
LOG = FOLDER / "fleet.log"


def write_state(profile: str, fleet: Fleet, skipped: dict[str, str], *, done: str = "") -> None:
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


def supervisor_id() -> int | None:
    """The process id of a running supervisor of this folder; a stale file is none."""
    try:
        pid = int(json.loads(STATE.read_text())["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError):
        return None
    return pid if b"fleet" in words and b"supervise" in words else None


async def health(state: dict[str, Any]) -> dict[str, bool]:
    names = [process["name"] for process in state["processes"]]
    found = await asyncio.gather(*(answers(process["ready"]) for process in state["processes"]))
    return dict(zip(names, found, strict=True))


def hints(profile: str) -> str:
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
