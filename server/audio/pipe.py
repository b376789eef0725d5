"""FFmpeg reads a file while it is still coming: a thread of its own, fed through a pipe.

Knows no rates and no limits; whoever takes the blocks does.
"""

from collections import deque
from dataclasses import dataclass
from threading import Condition

import av
from av.container import InputContainer

from server.audio.ffmpeg import _CODECS, _DEMUXERS, _audio_track, _blocks, decoded
from server.audio.source import Block

_PROBE_BYTES = 2048  # FFmpeg's look ahead; its default would hold back seconds of audio
_QUEUED_BLOCKS = 4  # decoded but not taken: a small file may hold hours


@dataclass(frozen=True, slots=True)
class Decoded:
    """A block, and the rate of the file it is from."""

    samples: Block
    rate_hz: int


class _ClosedError(Exception):
    """Nobody wants the samples any more."""


class Pipe:
    """Between the thread that brings bytes and the one that decodes them. Bounded on the way out:
    who decodes waits until its blocks are taken; who brings waits in `next_block`."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._bytes = bytearray()
        self._blocks: deque[Decoded] = deque()
        self._hungry = False  # the decoder waits for bytes
        self._ended = False  # there will be no more bytes
        self._closed = False
        self._done = False  # the decoder has ended
        self.error: Exception | None = None

    def write(self, data: bytes) -> None:
        with self._changed:
            self._bytes += data
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = self._ended = True
            self._bytes.clear()
            self._blocks.clear()
            self._changed.notify_all()

    def next_block(self) -> Decoded | None:
        """Waits until there is one, or until there cannot be one without more bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._is_idle())
            if not self._blocks:
                return None
            self._changed.notify_all()
            return self._blocks.popleft()

    def read(self, size: int) -> bytes:
        """For FFmpeg. No seek beside it: FFmpeg then knows that it reads a pipe."""
        with self._changed:
            self._hungry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._bytes or self._ended)
            self._hungry = False
            data = bytes(self._bytes[:size])
            del self._bytes[:size]
            return data

    def open(self, container: str) -> InputContainer:
        """For FFmpeg too, in its thread."""
        look_ahead = {"probesize": str(_PROBE_BYTES), "analyzeduration": "0"}
        return open_input(self, container, _PROBE_BYTES, look_ahead)

    def put(self, block: Decoded) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._blocks) < _QUEUED_BLOCKS or self._closed)
            if self._closed:
                raise _ClosedError
            self._blocks.append(block)
            self._changed.notify_all()

    def leave(self, error: Exception | None) -> None:
        with self._changed:
            self._done, self.error = True, error
            self._bytes.clear()
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return self._done or self._closed or (self._hungry and not self._bytes and not self._ended)


def decode_pipe(container: str, pipe: Pipe) -> None:
    """The whole life of the decoding thread."""
    error: Exception | None = None
    try:
        with pipe.open(container) as file:
            track = _audio_track(file, container)
            for samples in _blocks(decoded(file, track, container)):
                pipe.put(Decoded(samples, track.codec_context.sample_rate))
    except Exception as failure:  # what a codec raises on bytes from strangers has no list
        error = failure
    pipe.leave(error)


def open_input(
    file: object, container: str, buffer: int, options: dict[str, str]
) -> InputContainer:
    """`file` has `read`, and `seek` and `tell` if FFmpeg may use them; `buffer` is in bytes."""
    return av.open(
        file,
        mode="r",
        format=_DEMUXERS[container],
        buffer_size=buffer,
        options={"codec_whitelist": ",".join(_CODECS), **options},
        metadata_errors="ignore",
    )
