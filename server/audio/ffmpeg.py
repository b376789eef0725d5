"""Reads what libsndfile lacks through FFmpeg (PyAV); knows no limits and translates no errors."""

import ctypes
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from server.audio.isomedia import Boxes
from server.audio.source import Block, Source
from server.speech import InvalidInput

# The demuxer is named, never probed: FFmpeg also knows playlists, which fetch what they name.
_DEMUXERS = {
    "wav": "wav",
    "flac": "flac",
    "ogg/vorbis": "ogg",
    "ogg/opus": "ogg",
    "mp3": "mp3",
    "aiff": "aiff",
    "au": "au",
    "caf": "caf",
    "m4a": "mov",
    "webm": "matroska",
    "aac": "aac",
    "amr": "amr",
}
_HAVE_A_DURATION = frozenset({"m4a", "webm"})  # elsewhere FFmpeg guesses it from the bit rate
_CODECS = (
    *("aac", "aac_latm", "ac3", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "alac"),
    *("amrnb", "amrwb", "eac3", "flac", "libopus", "mp2", "mp3", "mp3float", "opus"),
    *("pcm_alaw", "pcm_f32be", "pcm_f32le", "pcm_mulaw", "pcm_s16be", "pcm_s16le"),
    *("pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le", "pcm_u8", "vorbis"),
)
_MAX_PLANES = 7  # PyAV 18 walks past the end of an AVFrame that has 8 planes or more, and crashes
_PROTECTED = frozenset({"drms", "enca"})  # sample entries of encrypted tracks (ISO/IEC 14496-12)
_MAX_INDEX = 2**22  # samples; FFmpeg keeps 40 bytes for each, whether it exists or not
_MAX_ALLOCATION = 2**27  # bytes; the index, 24 for each sample, is the largest that is honest
_MAX_FRAME = 2**17  # samples a channel in one codec frame; FLAC, the largest, has 65535


def _bound_allocations() -> None:
    """An index also grows with the samples that a chunk claims, of which `check_index` knows
    nothing: 20 KB could ask for 4 GB. `av_max_alloc` (libavutil/mem.h) is for the whole process."""
    libavutil = ctypes.CDLL(av._core.__file__)  # finds it among what PyAV is linked to
    libavutil.av_max_alloc(ctypes.c_size_t(_MAX_ALLOCATION))


_bound_allocations()


@contextmanager
def open_ffmpeg(container: str, data: bytes) -> Iterator[Source]:
    """A Source over the best audio track of `data`.

    Raises InvalidInput: FORMAT_UNSUPPORTED if there is none, or none that may be decoded;
    CHANNEL_OUT_OF_RANGE; AUDIO_UNDECODABLE for an index too large to build. Besides, whatever
    PyAV does.
    """
    if container == "m4a":
        boxes = Boxes()
        boxes.push(data)
        check_index(boxes)
    with av.open(
        io.BytesIO(data),
        mode="r",
        format=_DEMUXERS[container],
        options={"codec_whitelist": ",".join(_CODECS)},
        metadata_errors="ignore",
    ) as file:
        track = _audio_track(file, container)
        frames = decoded(file, track, container)
        first = next(frames)
        seconds = _seconds(file) if container in _HAVE_A_DURATION else None
        yield Source(
            container=container,
            # The frame, not the header: HE-AAC plays at twice the rate its header gives.
            rate_hz=first.sample_rate,
            channels=first.layout.nb_channels,
            blocks=_blocks(chain((first,), frames)),
            announced_frames=None if seconds is None else round(seconds * first.sample_rate),
        )


def decoded(file: InputContainer, track: AudioStream, container: str) -> Iterator[av.AudioFrame]:
    """The frames of a track. Raises InvalidInput CHANNEL_OUT_OF_RANGE, and whatever PyAV does.

    Opus goes through libopus, as it does in libsndfile: FFmpeg's own decoder strays from the
    reference at low bit rates (correlation 0.90 on 24 kbit/s speech), so that a stream would
    hear another voice than a unary call.
    """
    for frame in _frames(file, track):
        _check_planes(frame, container)
        yield frame


def _frames(file: InputContainer, track: AudioStream) -> Iterator[av.AudioFrame]:
    if track.codec_context.codec.name != "opus":
        yield from file.decode(track)
        return
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = track.codec_context.extradata
    for packet in file.demux(track):  # the last one is empty and flushes
        yield from decoder.decode(packet)


def check_index(boxes: Boxes) -> None:
    """Raises InvalidInput AUDIO_UNDECODABLE for one that is too large to build."""
    if boxes.compressed or boxes.samples > _MAX_INDEX:
        actual = "a compressed one" if boxes.compressed else boxes.samples
        text = f"expected an index of at most {_MAX_INDEX} samples in m4a, got {actual}"
        raise InvalidInput(
            "AUDIO_UNDECODABLE", text, container="m4a", limit=_MAX_INDEX, actual=actual
        )


def _audio_track(file: InputContainer, container: str) -> AudioStream:
    track = file.streams.best("audio")
    codec = "none"
    if isinstance(track, AudioStream) and track.codec_context is not None:
        encrypted = track.codec_context.codec_tag in _PROTECTED
        codec = "encryption" if encrypted else track.codec_context.codec.name
    if not isinstance(track, AudioStream) or codec not in _CODECS:
        text = f"expected an audio track in a supported codec, got {container} with {codec}"
        raise InvalidInput("FORMAT_UNSUPPORTED", text, container=container, actual=codec)
    track.codec_context.thread_count = 1
    track.codec_context.options = {"max_samples": str(_MAX_FRAME)}
    return track


def _check_planes(frame: av.AudioFrame, container: str) -> None:
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > _MAX_PLANES:
        text = f"expected at most {_MAX_PLANES} channels in {container}, got {channels}"
        raise InvalidInput(
            "CHANNEL_OUT_OF_RANGE",
            text,
            container=container,
            limit=f"1..{_MAX_PLANES}",
            actual=channels,
        )


def _seconds(file: InputContainer) -> float | None:
    return None if file.duration is None else file.duration / av.time_base


def _blocks(frames: Iterator[av.AudioFrame]) -> Iterator[Block]:
    """Ends, as if damaged, where the rate, the channels or their storage change."""
    shape = None
    for frame in frames:
        now = frame.sample_rate, frame.layout.nb_channels, frame.format.name
        if shape not in (None, now):
            raise ValueError(f"{shape} became {now}")
        shape = now
        yield _as_float32(frame)


def _as_float32(frame: av.AudioFrame) -> Block:
    """(frames, channels) in [-1, 1], from the planar or packed samples of any codec in _CODECS."""
    stored = frame.to_ndarray()
    columns = stored.T if frame.format.is_planar else stored.reshape(-1, frame.layout.nb_channels)
    samples: Block = columns.astype(np.float32, copy=False)
    if stored.dtype == np.uint8:
        samples -= 128
    if stored.dtype.kind != "f":
        samples /= 2 ** (8 * stored.itemsize - 1)
    return samples
