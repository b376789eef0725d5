"""EmotionService: Analyze, AnalyzeUpload, BatchAnalyze and AnalyzeStream."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from speechemotion.v1.emotion_service_pb2 import (
    AnalyzeRequest,
    AnalyzeResponse,
    AnalyzeStreamRequest,
    AnalyzeUploadRequest,
    BatchAnalyzeRequest,
    BatchAnalyzeResponse,
)
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceServicer

from server.service.analysis import Analyzer
from server.service.calls import Call, Calls, Context
from server.service.query import read_query, wanted_priority
from server.service.received import Received
from server.service.stream import Streams
from server.service.upload import Uploads
from server.speech import InvalidInput

NAME = "speechemotion.v1.EmotionService"


@contextmanager
def _field_of_upload() -> Iterator[None]:
    """The audio has another field there."""
    try:
        yield
    except InvalidInput as error:
        if error.field == "audio_data":
            error.field = "audio.data"
        raise


class EmotionService(EmotionServiceServicer):
    """Answers speechemotion.v1.EmotionService."""

    def __init__(
        self, analyzer: Analyzer, uploads: Uploads, streams: Streams, calls: Calls
    ) -> None:
        self._analyzer = analyzer
        self._uploads = uploads
        self._streams = streams
        self._calls = calls

    async def Analyze(self, received: Received, context: Context) -> AnalyzeResponse:
        async with self._calls.answering(context, f"{NAME}/Analyze", limited=True) as call:
            return await self._answer(received.request, received.audio, call)

    async def AnalyzeUpload(
        self, requests: AsyncIterator[AnalyzeUploadRequest], context: Context
    ) -> AnalyzeResponse:
        del requests  # read through the context, in tasks of their own
        async with self._calls.answering(context, f"{NAME}/AnalyzeUpload", limited=True) as call:
            with _field_of_upload():
                return await self._uploads.answer(context, call)

    async def BatchAnalyze(
        self, request: BatchAnalyzeRequest, context: Context
    ) -> BatchAnalyzeResponse:
        async with self._calls.answering(context, f"{NAME}/BatchAnalyze", limited=True) as call:
            self._check_batch(request)
            items = await asyncio.gather(*(self._item(one, call) for one in request.requests))
            return BatchAnalyzeResponse(items=items)

    async def AnalyzeStream(
        self, requests: AsyncIterator[AnalyzeStreamRequest], context: Context
    ) -> None:
        del requests  # read through the context, in a task of their own
        async with self._calls.answering(context, f"{NAME}/AnalyzeStream") as call:
            await self._streams.serve(context, call)

    async def _answer(
        self, request: AnalyzeRequest, audio: bytes | memoryview, call: Call
    ) -> AnalyzeResponse:
        call.named(request.request_id)
        self._analyzer.door.check(call, wanted_priority(request))
        query = read_query(request, audio)
        return await self._analyzer.analyze(query, call)

    async def _item(self, request: AnalyzeRequest, call: Call) -> BatchAnalyzeResponse.Item:
        """An answer, or the status that the item alone would have got."""
        try:
            self._analyzer.door.check(call, wanted_priority(request))
            response = await self._analyzer.analyze(read_query(request), call)
        except Exception as error:
            status = self._calls.failure(call, error).status
            return BatchAnalyzeResponse.Item(error=status)
        return BatchAnalyzeResponse.Item(response=response)

    def _check_batch(self, request: BatchAnalyzeRequest) -> None:
        count, limit = len(request.requests), self._analyzer.limits.max_batch_items
        if not 1 <= count <= limit:
            raise InvalidInput(
                "BATCH_SIZE_OUT_OF_RANGE",
                f"A batch has 1 to {limit} requests, not {count}.",
                field="requests",
                limit=limit,
                actual=count,
            )
        size, most = request.ByteSize(), self._analyzer.limits.audio.max_bytes
        if size > most:
            raise InvalidInput(
                "AUDIO_TOO_LARGE",
                f"A batch has at most {most} bytes, not {size}.",
                field="requests",
                limit=most,
                actual=size,
            )
