"""Names a container by its first bytes, and tells whether its end is missing; pure."""

CONTAINERS = (
    "wav",
    "flac",
    "ogg/vorbis",
    "ogg/opus",
    "mp3",
    "aiff",
    "au",
    "caf",
    "m4a",
    "webm",
    "aac",
    "amr",
)
"""Every name `recognise` can answer. "m4a" is any ISO media file (MP4, MOV, 3GP), "webm" any
Matroska, "aac" an ADTS stream."""

_MAGIC = {
    b"fLaC": "flac",
    b".snd": "au",
    b"caff": "caf",
    b"\x1aE\xdf\xa3": "webm",
    b"#!AM": "amr",
}
_WAVE = (b"RIFF", b"RIFX", b"RF64")
_OGG_CODECS = {
    b"\x01vorbis": "ogg/vorbis",
    b"OpusHead": "ogg/opus",
}

# ISO/IEC 11172-3 and 13818-3, Layer III: kbit/s by index 1 to 14, Hz of MPEG-1 by index.
_KBITS_MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES = (44_100, 48_000, 32_000)

MAGIC_BYTES = 512
"""All that `has_magic` looks at: an Ogg page names its codec after at most 282 bytes."""

_UNKNOWN_SIZE = 0x7FFF_0000  # a writer that cannot seek back leaves a size from here upwards, or 0


def recognise(data: bytes) -> str | None:
    """The container that `data` begins like, one of CONTAINERS, or None."""
    if data[:3] == b"ID3":
        return _by_magic(data[_id3_bytes(data) :]) or "mp3"
    return _by_magic(data) or _by_sync_words(data)


def has_magic(data: bytes) -> str | None:
    """As `recognise`, without what samples can look like by chance (MP3 and ADTS sync words)."""
    return _by_magic(data)


def is_cut_short(container: str, data: bytes) -> bool:
    """Whether the file says by its own structure that bytes are missing at its end."""
    if container.startswith("ogg/"):
        return not _ends_with_last_ogg_page(data)
    if container == "wav" and data[:4] == b"RIFF":
        return _promises_more(int.from_bytes(data[4:8], "little"), data)
    if container == "aiff":
        return _promises_more(int.from_bytes(data[4:8], "big"), data)
    return False


def _by_magic(data: bytes) -> str | None:
    if data[:4] in _WAVE and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if data[4:8] in (b"ftyp", b"moov"):
        return "m4a"
    if data[:4] == b"OggS":
        return _ogg_codec(data)
    return _MAGIC.get(data[:4])


def _ogg_codec(data: bytes) -> str | None:
    """The first packet of an Ogg stream names its codec (RFC 3533, section 6)."""
    segments = data[26] if len(data) > 26 else 0
    packet = data[27 + segments : 27 + segments + 8]
    return next((name for magic, name in _OGG_CODECS.items() if packet.startswith(magic)), None)


def _by_sync_words(data: bytes) -> str | None:
    """A sync word is short enough to occur by chance, so a second one has to follow the frame."""
    for name, frame_bytes in (("mp3", _mp3_frame_bytes), ("aac", _adts_frame_bytes)):
        first = frame_bytes(data[:8])
        if first and frame_bytes(data[first : first + 8]):
            return name
    return None


def _mp3_frame_bytes(head: bytes) -> int:
    """Bytes from one Layer III header to the next; 0 if `head` is none (ISO/IEC 11172-3, 2.4)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    mpeg1 = version == 3
    hertz = _MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * (_KBITS_MPEG1 if mpeg1 else _KBITS_MPEG2)[bitrate - 1]
    return (144 if mpeg1 else 72) * bits // hertz + (head[2] >> 1 & 1)


def _adts_frame_bytes(head: bytes) -> int:
    """Bytes from one ADTS header to the next; 0 if `head` is none (ISO/IEC 14496-3, 1.A.3.2)."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else 0


def _id3_bytes(data: bytes) -> int:
    """The length of an ID3v2 tag: ten bytes and a size of seven bits a byte (id3.org, 3.1)."""
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10


def _promises_more(size: int, data: bytes) -> bool:
    return 0 < size < _UNKNOWN_SIZE and size + 8 > len(data)


def _ends_with_last_ogg_page(data: bytes) -> bool:
    """Whether the last page is whole and flagged as the end of its stream (RFC 3533, section 6)."""
    start = data.rfind(b"OggS")
    page = data[start:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    body = sum(page[27 : 27 + page[26]])
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + body
