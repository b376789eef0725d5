"""One connection of a stream: messages out and in, failures as typed errors. Resumes nothing."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc

from speech_emotion_client.errors import (
    DeadlineExceeded,
    SpeechEmotionError,
    Unavailable,
    from_rpc_error,
    from_status,
)
from speech_emotion_client.v1 import emotion_service_pb2 as pb

from .tail import Item, Mark, Piece, Tail

CHUNK = 2**16
"""Bytes of a message at most, if the server accepts as much."""

BROKEN = (grpc.RpcError, asyncio.InvalidStateError)
"""What writing raises when the call is over; reading says why."""


class Wire:
    """Lives as long as its call. Whoever stops waiting for `read` ends the call with that."""

    def __init__(self, open_call: Callable[[], Any], *, raw_frame: int) -> None:
        self._call = open_call()
        self._frame = raw_frame
        self._sender: asyncio.Task[None] | None = None

    async def greet(
        self, config: pb.StreamConfig, seconds: float, pause: float = 0.0
    ) -> pb.AnalyzeStreamResponse:
        """Opens the session; its first event. Raises a SpeechEmotionError.

        Says nothing for `pause` seconds, in which a refusal is heard for certain: gRPC may not hear
        what comes while it writes.
        """
        try:
            async with asyncio.timeout(seconds):
                if pause:
                    await self._listen(pause)
                with suppress(*BROKEN):
                    await self._call.write(pb.AnalyzeStreamRequest(config=config))
                return await self._read()
        except TimeoutError:
            text = f"The stream was not open within {seconds:g} s."
            raise DeadlineExceeded(text, code="DEADLINE_EXCEEDED") from None

    async def read(self, seconds: float) -> pb.AnalyzeStreamResponse:
        """The next event; `seconds` of silence are a broken connection."""
        try:
            async with asyncio.timeout(seconds or None):
                return await self._read()
        except TimeoutError:
            text = f"Nothing was heard for {seconds:g} s."
            raise Unavailable(text, code="UNAVAILABLE") from None

    def start_sending(
        self, tail: Tail, limit: int, news: asyncio.Event, room: asyncio.Event
    ) -> None:
        """Sends what `tail` has whenever there is `news`; says when there is `room` again."""
        size = min(limit or CHUNK, CHUNK)
        self._sender = asyncio.create_task(self._send(tail, size, news, room))

    def cancel(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        """Nothing is sent or received any more."""
        self._call.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])

    async def _read(self) -> pb.AnalyzeStreamResponse:
        try:
            message = await self._call.read()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # we run in one
                raise
            raise _cut_off() from None  # the call was cancelled, not who waits for it
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
            raise await self._reason()
        if message.HasField("error"):
            raise from_status(message.error)
        return message  # type: ignore[no-any-return]  # the generated stubs are untyped

    async def _listen(self, seconds: float) -> None:
        """Raises what the call ends with in that time."""
        end = asyncio.ensure_future(self._call.code())
        try:
            if (await asyncio.wait({end}, timeout=seconds))[0]:
                raise await self._reason()
        finally:
            end.cancel()

    async def _reason(self) -> SpeechEmotionError:
        """Why there is nothing more; OK without a summary is a failure too."""
        try:
            if (code := await self._call.code()) is grpc.StatusCode.OK:
                return _cut_off()
            return from_rpc_error(
                grpc.aio.AioRpcError(
                    code,
                    await self._call.initial_metadata(),
                    await self._call.trailing_metadata(),
                    details=await self._call.details(),
                    debug_error_string=None,
                )
            )
        except grpc.RpcError as error:
            return from_rpc_error(error)

    async def _send(self, tail: Tail, size: int, news: asyncio.Event, room: asyncio.Event) -> None:
        with suppress(*BROKEN):
            while True:
                news.clear()
                while (item := tail.next(size)) is not None:
                    await self._call.write(self._message(item))
                    room.set()
                await news.wait()

    def _message(self, item: Item) -> pb.AnalyzeStreamRequest:
        match item:
            case Piece(position, data):
                chunk = pb.AudioChunk(data=data)
                if self._frame:
                    chunk.first_sample = position // self._frame
                else:
                    chunk.first_byte = position
                return pb.AnalyzeStreamRequest(audio=chunk)
            case Mark():
                mark = pb.StreamControl(end_segment=pb.EndSegment())
                return pb.AnalyzeStreamRequest(control=mark)
            case _:
                return pb.AnalyzeStreamRequest(control=pb.StreamControl(finish=pb.Finish()))


def _cut_off() -> SpeechEmotionError:
    return Unavailable("The stream ended without a summary.", code="UNAVAILABLE")
