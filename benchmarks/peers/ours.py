"""Our server with the null model: every check, the access log, metrics; only the engine is other.

python -m benchmarks.peers.ours [flags of speech-emotion-server]
"""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import uvloop

from benchmarks.peers.null_model import BATCH_SECONDS, scores
from server.app import run
from server.config import read_settings
from server.engine.fake import FakeEngine
from server.speech import Model, Prediction, Utterance
from server.telemetry.logs import configure

EMBEDDING = np.zeros(8, np.float32)


class NullEngine(FakeEngine):
    """Takes the time of a batch and answers with the logarithms of the null model's scores."""

    @property
    def model(self) -> Model:
        return replace(super().model, name="null")

    def infer(self, batch: Sequence[Utterance]) -> list[Prediction]:
        time.sleep(BATCH_SECONDS)
        return [_predict(one) for one in batch]


def _predict(one: Utterance) -> Prediction:
    scale = 1 / 64 if one.samples.dtype == np.int16 else 32768 / 64
    probabilities = scores(one.samples, scale)
    return Prediction(logits=np.log(probabilities), embedding=EMBEDDING)


def main() -> None:
    settings = read_settings(sys.argv[1:], {})
    configure(level=settings.log_level, style=settings.log_format)

    async def serve() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await run(settings, NullEngine, stop)

    sys.exit(uvloop.run(serve()))


if __name__ == "__main__":
    main()
