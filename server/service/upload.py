"""AnalyzeUpload: a file in pieces, answered as by Analyze, or in windows if it is too long.

Holds at most what Analyze would, and of a longer file a few windows, however large it is.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from speechemotion.v1.emotion_service_pb2 import AnalyzeResponse

from batcher import Batcher, Overloaded, Priority, Served
from server.errors import CacheMiss, ModelNotFound, TooManyCalls
from server.service.analysis import Analyzer
from server.service.answer import resource_name
from server.service.calls import Call, Context
from server.service.query import Query, read_query, wanted_priority
from server.service.upload_answer import Gathered
from server.service.upload_source import Cutter, Inbox
from server.speech import SAMPLE_RATE, InvalidInput, Prediction, Utterance
from server.streaming.decisions import Segment
from server.streaming.plan import StreamLimits, Windows

ROWS_A_SECOND = 50  # of the frame embeddings that `max_frame_embedding_seconds` limits


class Uploads:
    """The uploads of this server. A long one has a decoding thread, so their number is bounded."""

    def __init__(
        self,
        analyzer: Analyzer,
        batcher: Batcher[Utterance, Prediction],
        streams: StreamLimits,
        decoders: Executor,
        *,
        max_bytes: int,
        max_long: int,
    ) -> None:
        self._analyzer = analyzer
        self._batcher = batcher
        self._streams = streams
        self._decoders = decoders
        self._max_bytes = max_bytes
        self._max_long = max_long
        self._long = 0  # in progress

    def __repr__(self) -> str:
        return f"<Uploads long={self._long}>"

    async def answer(self, context: Context, call: Call) -> AnalyzeResponse:
        """Raises what Analyze raises, StreamAborted, and TooManyCalls for one long upload more."""
        inbox = Inbox(context, self._max_bytes, self._streams.idle_timeout)
        first = await inbox.first()
        call.named(first.request_id)
        self._analyzer.door.check(call, wanted_priority(first))
        query = read_query(first)
        self._check(query)
        head = await self._take_head(bytes(query.data), inbox)
        if inbox.ended:
            try:
                return await self._analyzer.analyze(replace(query, data=b"".join(head)), call)
            except InvalidInput as error:
                if error.reason != "AUDIO_TOO_LONG":
                    raise
        with self._counted():
            return await self._answer_long(replace(query, data=b""), head, inbox, call)

    def _check(self, query: Query) -> None:
        model = self._analyzer.model
        if query.model not in {"", f"models/{model.name}", resource_name(model)}:
            raise ModelNotFound(query.model)
        if query.cache_only:
            raise CacheMiss("There is no cached answer for this audio.")

    async def _take_head(self, data: bytes, inbox: Inbox) -> deque[bytes]:
        """Pieces up to the end, or until there are more bytes than Analyze takes."""
        pieces = deque([data])
        while inbox.size <= self._analyzer.limits.audio.max_bytes:
            piece = await inbox.next()
            if piece is None:
                break
            pieces.append(piece)
        return pieces

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._long >= self._max_long:
            raise TooManyCalls(self._max_long)
        self._long += 1
        try:
            yield
        finally:
            self._long -= 1

    async def _answer_long(
        self, query: Query, pieces: deque[bytes], inbox: Inbox, call: Call
    ) -> AnalyzeResponse:
        limits = self._analyzer.limits
        windows = _windows_of(self._streams)
        rows = round(ROWS_A_SECOND * limits.max_frame_embedding_seconds)
        gathered = Gathered(query, self._analyzer.model, windows, rows)
        cutter = Cutter(query.described, limits.audio, windows, self._streams, digest=query.digest)
        submitted: deque[tuple[Segment, asyncio.Task[Served[Prediction]]]] = deque()
        try:
            async for segment in self._cut(cutter, pieces, inbox):
                if len(submitted) == self._streams.max_pending:
                    await _gather_oldest(submitted, gathered)
                submitted.append((segment, asyncio.create_task(self._submit(segment, call))))
                call.audio_seconds = segment.end / SAMPLE_RATE
            while submitted:
                await _gather_oldest(submitted, gathered)
        finally:
            cutter.close()
            for _, task in submitted:
                task.cancel()
            await asyncio.gather(*(task for _, task in submitted), return_exceptions=True)
        total = time.monotonic() - call.arrived_at
        return gathered.to_response(cutter.received(query.request_id or call.request_id, total))

    async def _cut(
        self, cutter: Cutter, pieces: deque[bytes], inbox: Inbox
    ) -> AsyncIterator[Segment]:
        """The windows of the pieces and of what is still to come."""
        run = asyncio.get_running_loop().run_in_executor
        ended = False
        while not ended:
            piece = pieces.popleft() if pieces else await inbox.next()
            ended = piece is None
            feed: Callable[[], None] = cutter.end if piece is None else partial(cutter.feed, piece)
            await run(self._decoders, feed)
            del piece, feed
            while (found := await run(self._decoders, cutter.more)) is not None:
                for segment in found:
                    yield segment
        for segment in await run(self._decoders, cutter.finish):
            yield segment

    async def _submit(self, segment: Segment, call: Call) -> Served[Prediction]:
        """Waits for its turn as long as the caller does: reading is held up meanwhile."""
        while True:
            try:
                return await self._batcher.submit(
                    Utterance(segment.waveform),
                    length=len(segment.waveform) / SAMPLE_RATE,
                    deadline=call.deadline,
                    priority=Priority.BULK,
                    tenant=call.tenant,
                )
            except Overloaded as full:
                await asyncio.sleep(full.retry_after)


def _windows_of(limits: StreamLimits) -> Windows:
    samples_per_ms = SAMPLE_RATE // 1000
    return Windows(limits.window_ms * samples_per_ms, limits.hop_ms * samples_per_ms)


async def _gather_oldest(
    submitted: deque[tuple[Segment, asyncio.Task[Served[Prediction]]]], gathered: Gathered
) -> None:
    segment, task = submitted.popleft()
    gathered.add(segment, await task)
