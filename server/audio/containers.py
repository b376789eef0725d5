"""Which library reads which container; turns every failure to open into one kind of answer."""

from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from server.audio.ffmpeg import open_ffmpeg
from server.audio.sndfile import open_sndfile
from server.audio.source import Source
from server.speech import InvalidInput

_ONLY_FFMPEG = frozenset({"m4a", "webm", "aac", "amr", "caf"})


class _Reader(Protocol):
    def __call__(self, container: str, data: bytes) -> AbstractContextManager[Source]: ...


def open_container(container: str, data: bytes, stack: ExitStack) -> Source:
    """A Source that `stack` closes; libsndfile first, FFmpeg for the codecs it lacks.

    Raises InvalidInput: FORMAT_UNSUPPORTED without a track that may be decoded, AUDIO_UNDECODABLE
    if no library finds audio in it.
    """
    readers: tuple[_Reader, ...] = (open_sndfile, open_ffmpeg)
    for reader in readers[1:] if container in _ONLY_FFMPEG else readers:
        try:
            return stack.enter_context(reader(container, data))
        except InvalidInput:
            raise
        except Exception:  # what a codec raises on bytes from strangers has no list
            continue
    raise undecodable(container)


def undecodable(container: str) -> InvalidInput:
    text = f"expected audio, got {container} whose contents cannot be decoded"
    return InvalidInput("AUDIO_UNDECODABLE", text, container=container)
