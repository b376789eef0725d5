"""A server process whose engine only waits, for tests and benchmarks of what surrounds the model.

python -m benchmarks.replica --delay-ms 20 [flags of speech-emotion-server]
"""

import argparse
import asyncio
import signal
import sys

import uvloop

from server.app import run
from server.config import read_settings
from server.engine.fake import FakeEngine
from server.telemetry.logs import configure


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--delay-ms", type=float, default=0, help="of a batch")
    parser.add_argument("--delay-ms-per-second", type=float, default=0, help="of its audio")
    chosen, flags = parser.parse_known_args()
    settings = read_settings(flags, {})
    configure(level=settings.log_level, style=settings.log_format)
    engine = FakeEngine(
        delay_s_per_batch=chosen.delay_ms / 1000,
        delay_s_per_second=chosen.delay_ms_per_second / 1000,
    )

    async def serve() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await run(settings, lambda: engine, stop)

    sys.exit(uvloop.run(serve()))


if __name__ == "__main__":
    main()
