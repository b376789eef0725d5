"""Scripted streams: sessions that survive their connections, which break when they are told to."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc

from speech_emotion_client.v1 import emotion_service_pb2 as pb
from speech_emotion_client.v1 import result_pb2

from .answers import MODEL, SCORES
from .refusal import Refusal

LIMITS = pb.StreamLimits(
    max_chunk_bytes=2**18,
    idle_timeout_ms=30_000,
    max_session_ms=14_400_000,
    resume_window_ms=60_000,
    max_speed=2,
    max_sessions=256,
    max_pending_results=8,
    max_segment_ms=60_000,
)
BYTES_PER_MS = 32
"""As if all audio were 16-bit samples at 16 kHz: so many bytes are a millisecond."""

Message = pb.AnalyzeStreamRequest
Event = pb.AnalyzeStreamResponse


@dataclass(slots=True)
class FakeSession:
    """One session; its results depend on nothing but its bytes."""

    token: str
    config: pb.StreamConfig
    audio: bytearray = field(default_factory=bytearray)
    finals: list[pb.SegmentResult] = field(default_factory=list)
    start: int = 0  # of the segment that grows, in bytes
    finished: bool = False


class FakeStreams:
    """Remembers every session. A window ends a segment, or a mark, or the end.

    Each connection takes the next of `breaks`: after so many messages it ends with UNAVAILABLE, and
    the results of the last message are lost on the way. `refusals` fail the opening of a stream, as
    those of FakeServer do its calls. Connections in `draining` (0, 1, ...) say so before that.
    """

    def __init__(self, limits: pb.StreamLimits = LIMITS) -> None:
        self.limits = limits
        self.configs: list[pb.StreamConfig] = []  # of each connection
        self.metadata: list[dict[str, str]] = []  # of each connection
        self.sessions: dict[str, FakeSession] = {}
        self.refusals: deque[Refusal] = deque()
        self.breaks: deque[int] = deque()
        self.draining: set[int] = set()

    def serve(self, messages: Iterator[Message]) -> Iterator[Event]:
        """One connection."""
        connection, config = len(self.configs), next(messages).config
        self.configs.append(config)
        if self.refusals:
            raise self.refusals.popleft()
        session = self._open(config)
        left = self.breaks.popleft() if self.breaks else -1
        numbers = count(1)
        for event in self._greeting(session):
            yield _numbered(event, next(numbers), session)
        while left == 0 or not session.finished:
            if left == 0:
                if connection in self.draining:
                    draining = pb.Draining(grace_ms=1000, resume_token=session.token)
                    yield _numbered(Event(draining=draining), next(numbers), session)
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "The connection broke.")
            left -= 1
            events = _take(session, next(messages))
            if left != 0:
                for event in events:
                    yield _numbered(event, next(numbers), session)
        yield _numbered(Event(summary=_summary(session)), next(numbers), session)

    def _open(self, config: pb.StreamConfig) -> FakeSession:
        if not config.resume_token:
            token = f"session-{len(self.sessions)}"
            return self.sessions.setdefault(token, FakeSession(token, config))
        if config.resume_token not in self.sessions:
            code = grpc.StatusCode.NOT_FOUND
            raise Refusal(code, "There is no such session.", reason="SESSION_NOT_FOUND")
        return self.sessions[config.resume_token]

    def _greeting(self, session: FakeSession) -> Iterator[Event]:
        effective = pb.StreamConfig()
        effective.CopyFrom(session.config)
        if effective.HasField("fixed_window") or not effective.WhichOneof("segmentation"):
            effective.fixed_window.window_ms, effective.fixed_window.hop_ms = (
                _window(session),
                _window(session),
            )
        raw = session.config.audio_format.encoding
        started = pb.SessionStarted(
            session_id=session.token,
            resume_token=session.token,
            effective_config=effective,
            next_sample=len(session.audio) // 2 if raw else 0,
            next_byte=0 if raw else len(session.audio),
            limits=self.limits,
        )
        yield Event(session_started=started)
        for final in session.finals:
            again = pb.SegmentResult()
            again.CopyFrom(final)
            again.replayed = True
            yield Event(segment=again)


def _window(session: FakeSession) -> int:
    return session.config.fixed_window.window_ms or 2_000


def _take(session: FakeSession, message: Message) -> list[Event]:
    """What one message of the client leads to. Raises Refusal SAMPLES_MISSING for a gap."""
    trigger = pb.SegmentResult
    match message.WhichOneof("payload"):
        case "audio":
            session.audio += _missing(session, message.audio)
            return list(_windows(session))
        case "control" if message.control.HasField("end_segment"):
            if session.start == len(session.audio):  # twice at one place counts once
                return []
            return [_cut(session, len(session.audio), trigger.TRIGGER_CLIENT_MARK)]
        case _:
            session.finished = True
            rest = len(session.audio) > session.start
            return [_cut(session, len(session.audio), trigger.TRIGGER_FINISH)] if rest else []


def _missing(session: FakeSession, chunk: pb.AudioChunk) -> bytes:
    first = 2 * chunk.first_sample if chunk.HasField("first_sample") else chunk.first_byte
    have = len(session.audio)
    if first > have:
        text = f"expected audio from byte {have} on, got some from byte {first} on"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, text, reason="SAMPLES_MISSING")
    return chunk.data[have - first :]


def _windows(session: FakeSession) -> Iterator[Event]:
    if session.config.HasField("client_marks"):
        return
    size = _window(session) * BYTES_PER_MS
    while len(session.audio) - session.start >= size:
        yield _cut(session, session.start + size, pb.SegmentResult.TRIGGER_WINDOW)


def _cut(session: FakeSession, end: int, trigger: Any) -> Event:
    """The next final segment. Its emotion is chosen by its bytes."""
    heard = session.audio[session.start : end]
    labels = sorted(SCORES)
    turn = sum(heard) % len(labels)
    scores = dict(zip(labels[turn:] + labels[:turn], sorted(SCORES.values()), strict=True))
    result = pb.SegmentResult(
        segment_index=len(session.finals),
        is_final=True,
        trigger=trigger,
        start_ms=session.start // BYTES_PER_MS,
        end_ms=end // BYTES_PER_MS,
        result=_result(scores),
        timing=result_pb2.Timing(inference_ms=2.0, total_ms=3.0),
    )
    session.start = end
    session.finals.append(result)
    return Event(segment=result)


def _result(scores: dict[str, float]) -> result_pb2.EmotionResult:
    best = max(scores, key=scores.__getitem__)
    return result_pb2.EmotionResult(emotion=best, confidence=scores[best], scores=scores)


def _summary(session: FakeSession) -> pb.SessionSummary:
    finals, total = session.finals, max(1, session.start // BYTES_PER_MS)
    summary = pb.SessionSummary(segment_count=len(finals), audio_ms=len(session.audio) // 32)
    summary.speech_ms = summary.audio_ms
    overall = dict.fromkeys(SCORES, 0.0)
    for final in finals:
        share = (final.end_ms - final.start_ms) / total
        for label, score in final.result.scores.items():
            overall[label] += score * share
        emotion, confidence = final.result.emotion, final.result.confidence
        summary.timeline.add(
            start_ms=final.start_ms, end_ms=final.end_ms, emotion=emotion, confidence=confidence
        )
        summary.speech_share[emotion] += share
    if finals:
        summary.overall.CopyFrom(_result(overall))
    about = summary.metadata
    about.request_id, about.provenance.model = session.config.request_id, MODEL
    about.audio.duration_ms = summary.audio_ms
    about.audio.source_sample_rate_hz, about.audio.source_channel_count = 16_000, 1
    about.audio.container = "raw" if session.config.audio_format.encoding else "wav"
    return summary


def _numbered(event: Event, sequence: int, session: FakeSession) -> Event:
    event.sequence = sequence
    event.cursors.accepted_sample = len(session.audio) // 2
    if not session.config.audio_format.encoding:
        event.cursors.accepted_byte = len(session.audio)
    event.cursors.processed_sample = event.cursors.final_sample = session.start // 2
    return event
