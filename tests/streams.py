"""What a client of AnalyzeStream says and hears, for the tests of streams."""

import asyncio
import threading
from collections.abc import Sequence

import grpc
import numpy as np
from google.rpc.error_details_pb2 import ErrorInfo
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.audio_pb2 import AudioFormat
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from batcher import Priority
from server.app import serving
from server.config import Settings
from server.engine.fake import FakeEngine
from server.speech import Utterance

PCM = AudioFormat(encoding=AudioFormat.ENCODING_PCM_S16LE, sample_rate_hz=16_000)
WINDOWS = pb.FixedWindow(window_ms=500, hop_ms=250)
MARKS = pb.ClientMarks()


def pcm(seconds: float, *, rate: int = 16_000, seed: int = 1) -> bytes:
    """16-bit noise whose loudness changes, so that no two segments have the same answer."""
    count = round(rate * seconds)
    level = 6_000 + 5_000 * np.sin(np.arange(count) / rate * 3)
    noise = np.random.default_rng(seed).uniform(-1, 1, count)
    return (level * noise).astype("<i2").tobytes()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class Talk:
    """One stream, seen by its client; collects the events it has read."""

    def __init__(self, client, **config) -> None:
        config.setdefault("audio_format", PCM)
        if config["audio_format"] is None:
            del config["audio_format"]
        self.config = pb.StreamConfig(**config)
        self.call = client.AnalyzeStream()
        self.events: list[pb.AnalyzeStreamResponse] = []

    async def open(self) -> pb.SessionStarted:
        await self.call.write(pb.AnalyzeStreamRequest(config=self.config))
        return (await self.until("session_started")).session_started

    async def audio(self, *chunks: bytes, **position) -> None:
        for data in chunks:
            chunk = pb.AudioChunk(data=data, **position)
            await self.call.write(pb.AnalyzeStreamRequest(audio=chunk))

    async def control(self, action: str) -> None:
        control = pb.StreamControl()
        getattr(control, action).SetInParent()
        await self.call.write(pb.AnalyzeStreamRequest(control=control))

    async def until(self, kind: str, count: int = 1) -> pb.AnalyzeStreamResponse:
        """Reads up to the last of so many events of that kind."""
        while count:
            event = await self._next()
            if event is None:
                raise EOFError(f"no {kind}: {await self.call.code()} {self.kinds()}")
            self.events.append(event)
            count -= event.WhichOneof("event") == kind
        return self.events[-1]

    async def rest(self) -> None:
        """Reads to the end, however it comes."""
        while (event := await self._next()) is not None:
            self.events.append(event)

    async def _next(self) -> pb.AnalyzeStreamResponse | None:
        try:
            event = await self.call.read()
        except grpc.aio.AioRpcError:
            return None
        return None if event is grpc.aio.EOF else event

    async def whole(self, *chunks: bytes) -> pb.SessionSummary:
        """A stream from its first message, unless it is open, to its last."""
        if not self.events:
            await self.open()
        reading = asyncio.create_task(self.until("summary"))
        await self.audio(*chunks)
        await self.control("finish")
        summary = (await reading).summary
        await self.rest()
        return summary

    def kinds(self) -> list[str]:
        return [event.WhichOneof("event") for event in self.events]

    def of(self, kind: str) -> list:
        return [getattr(one, kind) for one in self.events if one.WhichOneof("event") == kind]

    def finals(self) -> list[pb.SegmentResult]:
        return [one for one in self.of("segment") if one.is_final]

    async def reason(self) -> tuple[grpc.StatusCode, str]:
        """Code and reason that the call ends with, and the in-band error says the same."""
        await self.rest()
        code, info = await self.call.code(), ErrorInfo()
        [error] = self.of("error")
        error.details[0].Unpack(info)
        assert error.code == code.value[0]
        return code, info.reason


class HeldEngine(FakeEngine):
    """Begins a batch and does not end it while it is held, so that no test has to be quick."""

    def __init__(self, **costs) -> None:
        self._go_on = threading.Event()
        self._go_on.set()
        self.samples: list[int] = []  # of each utterance, in the order of their batches
        super().__init__(**costs, fail_when=self._work)

    def hold(self) -> None:
        self._go_on.clear()

    def release(self) -> None:
        self._go_on.set()

    def _work(self, batch: Sequence[Utterance]) -> None:
        self.samples += [len(one.waveform) for one in batch]
        self._go_on.wait(60)

    async def until_begun(self, count: int) -> None:
        """Waits until so many batches have begun."""
        while len(self.batches) < count:
            await asyncio.sleep(0.01)


class Server:
    """A server with settings of its own, and a client of it."""

    def __init__(self, engine: FakeEngine | None = None, **settings) -> None:
        self.engine = engine or FakeEngine()
        self._settings = Settings(port=0, **settings)

    async def __aenter__(self):
        self._serving = serving(self._settings, lambda: self.engine)
        self._server = await self._serving.__aenter__()
        self.address = f"localhost:{self._server.port}"
        self._channel = grpc.aio.insecure_channel(self.address)
        self.client = EmotionServiceStub(self._channel)
        return self

    async def __aexit__(self, *failure):
        await self._channel.close()
        await self.stop()

    async def stop(self) -> None:
        running, self._serving = self._serving, None
        if running is not None:
            await running.__aexit__(None, None, None)

    @property
    def streams(self) -> str:
        return repr(self._server.streams)

    @property
    def waiting(self) -> int:
        """Requests in the batcher's queue."""
        return sum(self._server.batcher.statistics().waiting_by_priority.values())

    @property
    def metrics(self) -> str:
        """Where they are read."""
        return f"http://127.0.0.1:{self._server.metrics_port}/metrics"

    async def until_waiting(self, count: int) -> None:
        """Waits until so many requests are in the batcher's queue."""
        while self.waiting < count:
            await asyncio.sleep(0.01)

    async def until_waiting_of(self, priority: Priority) -> None:
        """Waits until there is one of that class."""
        while not self._server.batcher.statistics().waiting_by_priority.get(priority):
            await asyncio.sleep(0.01)

    async def until(self, state: str) -> None:
        """Waits until the streams are in that state."""
        while self.streams != f"<Streams {state}>":
            await asyncio.sleep(0.01)


def plain(event: pb.AnalyzeStreamResponse) -> pb.AnalyzeStreamResponse:
    """Without what depends on the time: cursors and timing."""
    copy = pb.AnalyzeStreamResponse()
    copy.CopyFrom(event)
    copy.ClearField("cursors")
    copy.segment.ClearField("timing") if copy.HasField("segment") else None
    return copy
