"""Bytes in, one waveform out; knows no transport, no batcher and no tensor library."""

from server.audio.decode import decode
from server.audio.limits import AudioLimits
from server.audio.raw import Encoding, RawFormat
from server.audio.sniff import CONTAINERS
from server.audio.wav import plain_samples

__all__ = ["CONTAINERS", "AudioLimits", "Encoding", "RawFormat", "decode", "plain_samples"]
