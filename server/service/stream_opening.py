"""Whether a new stream is let in, and the session that it gets."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from batcher import DeadlineUnmeetable, QueueFull
from server.audio import AudioLimits
from server.audio.incremental import open_intake
from server.errors import CacheMiss, ModelNotFound, StreamAborted
from server.service.answer import resource_name
from server.service.calls import Call, Context
from server.service.door import Door
from server.service.stream_config import Order, fields_of_config
from server.service.stream_messages import Result
from server.service.stream_outbox import Workshop
from server.speech import InvalidInput
from server.streaming.plan import segmenter_for
from server.streaming.session import Session
from server.streaming.silero import Silero


class Opening:
    """Of new streams; one that is resumed was let in before, and loses more than it costs."""

    def __init__(self, shop: Workshop, door: Door, audio: AudioLimits) -> None:
        self._shop = shop
        self._door = door
        self._audio = audio

    async def config(self, context: Context) -> Any:
        """The first message.

        Raises InvalidInput CONFIG_REQUIRED and REQUEST_MALFORMED, StreamAborted STREAM_IDLE.
        """
        messages: list[Any] = []

        async def read() -> None:
            messages.append(await context.read())

        # In a task that the end of this call does not cancel: a cancelled read leaks.
        idle = self._shop.limits.idle_timeout
        reading = self._shop.apart(read())
        await asyncio.wait({reading}, timeout=idle)
        if reading.done():
            reading.result()  # raises what is no message
        if not messages:
            raise StreamAborted("STREAM_IDLE", f"Nothing came for {idle:g} s.")
        message = messages[0]
        ended = message is grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
        if ended or message.WhichOneof("payload") != "config":
            text = "The first message of a stream is its config."
            raise InvalidInput("CONFIG_REQUIRED", text, field="config")
        return message.config

    def check(self, order: Order) -> None:
        """Raises ModelNotFound, CacheMiss."""
        name, model = order.query.model, self._shop.model
        if name not in {"", f"models/{model.name}", resource_name(model)}:
            raise ModelNotFound(name)
        if order.query.cache_only:
            raise CacheMiss("Streams are not cached.")

    def admit(self, call: Call, order: Order) -> None:
        """Raises a BatcherError if its windows would not be served, or those of a live one late."""
        if not order.live:
            self._door.check(call, order.priority)
            return
        in_time = asyncio.get_running_loop().time() + self._shop.limits.max_lag
        try:
            self._door.check(replace(call, deadline=in_time), order.priority)
        except DeadlineUnmeetable as late:
            if late.by_load:  # otherwise it is slow, and not because of others
                raise QueueFull(str(late), late.retry_after) from None

    async def session(
        self, order: Order, *, identity: str, token: str, tenant: str, age: float = 0.0
    ) -> Session[Result]:
        """One that has heard nothing, and began `age` seconds ago. Raises InvalidInput."""
        with fields_of_config():
            source = open_intake(order.query.described, self._audio)
        make = partial(segmenter_for, order.segmentation, order.interval, Silero)
        loop = asyncio.get_running_loop()
        return Session(
            identity=identity,
            token=token,
            tenant=tenant,
            config=order.identity,
            source=source,
            segmenter=await loop.run_in_executor(self._shop.decoders, make),
            labels=len(self._shop.model.labels),
            now=loop.time() - age,
        )
