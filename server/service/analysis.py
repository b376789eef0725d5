"""One utterance from bytes to answer: decode off the loop, wait for a batch, translate back."""

import asyncio
import hashlib
import time
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from speechemotion.v1.emotion_service_pb2 import AnalyzeResponse

from batcher import Batcher
from server.audio import AudioLimits, decode, plain_samples
from server.errors import CacheMiss, ModelNotFound
from server.service.answer import Passage, resource_name, to_response
from server.service.calls import Call
from server.service.door import Door
from server.service.query import Query
from server.speech import SAMPLE_RATE, Audio, InvalidInput, Model, Prediction, Utterance

QUICK_BYTES = 256 * 1024
"""Samples at the model's rate, headerless or in a plain WAV: so many are ready in 0.1 ms, and
hashed in 0.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may bring and take away."""

    audio: AudioLimits
    max_batch_items: int
    max_frame_embedding_seconds: float  # at float32 and stride 1


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoding thread hands back."""

    audio: Audio
    sha256: str
    seconds: float


class Analyzer:
    """The way of every unary utterance; a batch of items is several of them."""

    def __init__(
        self,
        batcher: Batcher[Utterance, Prediction],
        model: Model,
        limits: Limits,
        decoders: Executor,
        door: Door,
    ) -> None:
        self._batcher = batcher
        self.door = door
        self._decoders = decoders
        self.model = model
        self.limits = limits
        self._names = frozenset({"", f"models/{model.name}", resource_name(model)})

    async def analyze(self, query: Query, call: Call) -> AnalyzeResponse:
        """Raises InvalidInput, ModelNotFound, CacheMiss or a BatcherError."""
        self._check_model(query.model)
        if query.cache_only:
            raise CacheMiss("There is no cached answer for this audio.")
        query, notices = self.door.grant(query)
        decoded = await self._decode(query)
        call.audio_seconds += len(decoded.audio.samples) / SAMPLE_RATE
        check_embedding_size(query, decoded.audio, self.limits)
        served = await self._batcher.submit(
            Utterance(decoded.audio.samples, frames=query.frames),
            length=len(decoded.audio.samples) / SAMPLE_RATE,
            deadline=call.deadline,
            priority=query.priority,
            tenant=call.tenant,
        )
        passage = Passage(
            request_id=query.request_id or call.request_id,
            sha256=decoded.sha256,
            decode=decoded.seconds,
            queue=served.queue_time,
            inference=served.run_time,
            total=time.monotonic() - call.arrived_at,
            batch_size=served.batch_size,
            computed_at=time.time(),
        )
        audio = decoded.audio
        if notices:
            audio = replace(audio, notices=audio.notices + notices)
        return to_response(query, audio, served.result, self.model, passage)

    def _check_model(self, name: str) -> None:
        if name not in self._names:
            raise ModelNotFound(name)

    async def _decode(self, query: Query) -> Decoded:
        if is_quick(query):
            decoded = _decode(query, self.limits.audio)
        else:
            loop = asyncio.get_running_loop()
            with self.door.preparing():
                decoded = await loop.run_in_executor(
                    self._decoders, _decode, query, self.limits.audio
                )
        self.door.note(decoded.audio.duration_ms / 1000, decoded.seconds)
        return decoded


def check_embedding_size(query: Query, audio: Audio, limits: Limits) -> None:
    """Frame embeddings of long audio do not fit a message. Raises InvalidInput."""
    if not (query.frames and query.embedding):
        return
    bytes_per_value = 2 if query.embedding_type == "<f2" else 4
    limit_ms = round(1000 * limits.max_frame_embedding_seconds * query.stride * 4 / bytes_per_value)
    if audio.duration_ms > limit_ms:
        raise InvalidInput(
            "EMBEDDING_TOO_LARGE",
            f"Frame embeddings are limited to {limit_ms} ms of audio, this has "
            f"{audio.duration_ms} ms; use a larger frame_stride or FLOAT16.",
            field="extract_embedding",
            limit=limit_ms,
            actual=audio.duration_ms,
        )


def is_quick(query: Query) -> bool:
    """Whether decoding costs less than the way to another thread and back: see ADR 0009."""
    if len(query.data) > QUICK_BYTES:
        return False
    described = query.described
    if described is None or described.encoding is None:
        return plain_samples(query.data) is not None
    return described.sample_rate_hz == SAMPLE_RATE


def _decode(query: Query, limits: AudioLimits) -> Decoded:
    started = time.perf_counter()
    audio = decode(query.data, query.described, limits)
    digest = hashlib.sha256(query.data).hexdigest() if query.digest else ""
    return Decoded(audio, digest, time.perf_counter() - started)
