"""The yardstick: grpc.aio, uvloop, our messages, a plain batcher, and nothing else.

No deadline, no limit, no check, no log, no metric.  python -m benchmarks.peers.bare PORT
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvloop
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest, AnalyzeResponse
from speechemotion.v1.emotion_service_pb2_grpc import (
    EmotionServiceServicer,
    add_EmotionServiceServicer_to_server,
)

from benchmarks.peers.microbatch import MicroBatcher
from benchmarks.peers.null_model import LABELS, infer


class Echo(EmotionServiceServicer):
    """Analyze, as short as it can be written."""

    def __init__(self) -> None:
        self._batcher = MicroBatcher(infer, ThreadPoolExecutor(1))

    async def Analyze(self, request: AnalyzeRequest, context: object) -> AnalyzeResponse:
        del context
        scores = (await self._batcher(request.audio_data)).tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        return AnalyzeResponse(
            emotion=LABELS[best],
            confidence=scores[best],
            scores=dict(zip(LABELS, scores, strict=True)),
        )


async def serve(port: int) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    add_EmotionServiceServicer_to_server(Echo(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
