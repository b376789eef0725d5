"""What only a process of its own can tell of an engine: time to ready, and memory at its peak."""

import json
import sys
import time
from pathlib import Path

STARTED_AT = time.perf_counter()


def main(source: str, precision: str, threads: str, seconds: str) -> None:
    """Prints JSON: loads and warms up, then runs one clip of so many seconds, if any."""
    import numpy as np

    from server.engine.loading import load
    from server.speech import SAMPLE_RATE, Utterance

    engine = load(source, device="cpu", precision=precision, threads=int(threads))
    engine.warm_up()
    found = {"ready_s": time.perf_counter() - STARTED_AT, "ready_peak_mib": peak_mib()}
    if float(seconds):
        noise = np.random.default_rng(0).random(int(float(seconds) * SAMPLE_RATE), np.float32)
        started_at = time.perf_counter()
        engine.infer([Utterance(noise)])
        found |= {"run_s": time.perf_counter() - started_at, "run_peak_mib": peak_mib()}
    print(json.dumps(found))


def peak_mib() -> float:
    """Of this program; getrusage would count what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
