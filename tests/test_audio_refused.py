"""What is not audio, too much or too little is refused, early and in plain words."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from test_audio import film_without_sound, muxed, tone, written

from server.audio import AudioLimits, Encoding, RawFormat, decode
from server.audio.decode import listen
from server.audio.source import Source
from server.speech import InvalidInput

LIMITS = AudioLimits()
RAW = RawFormat(encoding=Encoding.PCM_S16LE, sample_rate_hz=16_000)
MEBIBYTE = 2**20


def refusal(data, described=None, limits=LIMITS):
    with pytest.raises(InvalidInput) as refused:
        decode(data, described, limits)
    return refused.value


def silence(kind, subtype, rate_hz, channels, seconds):
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, channels, format=kind, subtype=subtype) as out:
        second = np.zeros((rate_hz, channels), np.float32)
        for _ in range(seconds):
            out.write(second)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "AUDIO_EMPTY"),
        (b"\x00", "FORMAT_REQUIRED"),
        (b"hello, this is no audio at all", "FORMAT_REQUIRED"),
        (b"\xff\xfb\x90\x64" + bytes(2000), "FORMAT_REQUIRED"),
        (b"\xff\xfb\xf0\x64" + bytes(2000), "FORMAT_REQUIRED"),
        (b"OggS" + bytes(100), "FORMAT_REQUIRED"),
        (b"RIFF\x24\x00\x00\x00WAVE", "AUDIO_UNDECODABLE"),
        (b"fLaC" + bytes(100), "AUDIO_UNDECODABLE"),
        (b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f", "AUDIO_UNDECODABLE"),
        (b"\x00\x00\x00\x18ftypM4A ", "AUDIO_UNDECODABLE"),
        (written("WAV", np.zeros(0), 16_000), "AUDIO_EMPTY"),
        (written("WAV", np.zeros(399), 16_000), "AUDIO_TOO_SHORT"),
        (written("WAV", np.zeros(199), 8000), "AUDIO_TOO_SHORT"),
        (written("WAV", np.zeros(16_000), 3999), "SAMPLE_RATE_OUT_OF_RANGE"),
        (written("WAV", np.zeros((999, 17)), 16_000), "CHANNEL_OUT_OF_RANGE"),
        (written("AIFF", np.zeros(999), 16_000).replace(b"SSND", b"????"), "AUDIO_UNDECODABLE"),
        (film_without_sound(), "FORMAT_UNSUPPORTED"),
        (
            muxed("ipod", "aac", tone(16_000), 16_000).replace(b"mp4a", b"drms"),
            "FORMAT_UNSUPPORTED",
        ),
    ],
)
def test_every_bad_file_has_its_reason(data, reason):
    refused = refusal(data)

    assert refused.reason == reason
    assert not any(word in str(refused).lower() for word in ("error", "object", "/", "errno"))


@pytest.mark.parametrize(("samples", "rate_hz"), [(400, 16_000), (719, 16_000), (200, 8000)])
def test_the_shortest_accepted_clip_has_400_samples_at_sixteen_kilohertz(samples, rate_hz):
    audio = decode(written("WAV", np.zeros(samples), rate_hz), None, LIMITS)

    assert len(audio.waveform) >= 400


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5001, -1])
def test_one_sample_that_is_not_finite_is_enough(rate_hz, value, at):
    samples = tone(rate_hz)
    samples[at] = value

    refused = refusal(written("WAV", samples, rate_hz, "FLOAT"))

    assert refused.reason == "AUDIO_NOT_FINITE"


def test_channels_whose_sum_overflows_are_not_finite():
    loud = np.full((16_000, 2), 3e38, np.float32)

    refused = refusal(written("WAV", loud, 16_000, "FLOAT"))

    assert refused.reason == "AUDIO_NOT_FINITE"


def test_a_channel_that_the_file_lacks_is_refused():
    refused = refusal(
        written("WAV", tone(16_000), 16_000), RawFormat(encoding=None, channel_index=2)
    )

    assert (refused.reason, refused.field) == ("CHANNEL_OUT_OF_RANGE", "audio_format.channel_index")


def test_eight_channels_through_ffmpeg_are_refused_rather_than_crash_the_process():
    data = muxed("ipod", "aac", tone(48_000, channels=8), 48_000, "7.1")

    refused = refusal(data)

    assert refused.reason == "CHANNEL_OUT_OF_RANGE"
    assert refused.metadata == {"container": "m4a", "limit": "1..7", "actual": "8"}


def test_too_many_bytes_are_refused_unread():
    refused = refusal(bytes(101), RAW, AudioLimits(max_bytes=100))

    assert refused.reason == "AUDIO_TOO_LARGE"
    assert refused.metadata == {"limit": "100", "actual": "101"}


@pytest.mark.parametrize(("samples", "accepted"), [(32_000, True), (32_001, False)])
def test_the_longest_clip_is_accepted_and_one_sample_more_is_not(samples, accepted):
    limits = AudioLimits(max_seconds=2)

    if accepted:
        assert len(decode(bytes(2 * samples), RAW, limits).waveform) == samples
    else:
        refused = refusal(bytes(2 * samples), RAW, limits)
        assert refused.reason == "AUDIO_TOO_LONG"
        assert refused.metadata == {"limit": "2", "actual": "2.000"}


def test_reading_stops_with_the_first_block_that_is_too_much():
    pulled = []

    def endless():
        while True:
            pulled.append(1)
            yield np.zeros((1600, 1), np.float32)

    source = Source(container="wav", rate_hz=16_000, channels=1, blocks=endless())

    with pytest.raises(InvalidInput, match="at most 1 s"):
        listen(source, 0, AudioLimits(max_seconds=1))
    assert len(pulled) == 11


@pytest.mark.parametrize(
    ("kind", "subtype"), [("FLAC", "PCM_16"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
)
def test_minutes_of_silence_in_few_bytes_cost_little_memory(kind, subtype):
    bomb = silence(kind, subtype, 16_000, 1, 120)

    tracemalloc.start()
    refused = refusal(bomb, limits=AudioLimits(max_seconds=5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refused.reason == "AUDIO_TOO_LONG"
    assert float(refused.metadata["actual"]) < 6
    assert peak < 2 * MEBIBYTE  # all of it would be 7.7 MB


def test_high_rates_and_many_channels_are_mixed_down_as_they_come():
    wide = silence("FLAC", "PCM_16", 192_000, 8, 4)  # 24 MB as 32-bit floats

    tracemalloc.start()
    audio = decode(wide, None, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(audio.waveform) == 64_000
    assert peak < 4 * MEBIBYTE


@pytest.mark.parametrize("claimed", [0x7000_0000, 0xFFFF_FFF0])
def test_a_wav_header_that_lies_about_its_size_changes_nothing(claimed):
    data = bytearray(written("WAV", tone(16_000), 16_000))
    data[4:8] = data[40:44] = claimed.to_bytes(4, "little")

    tracemalloc.start()
    audio = decode(bytes(data), None, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(audio.waveform) == 16_000
    assert peak < MEBIBYTE


@pytest.mark.parametrize(("claimed", "codes"), [(2**36 - 1, ["AUDIO_TRUNCATED"]), (0, [])])
def test_a_flac_header_that_lies_about_its_length_changes_nothing(claimed, codes):
    data = bytearray(written("FLAC", tone(16_000), 16_000))
    bits = int.from_bytes(data[18:26], "big") >> 36 << 36 | claimed  # STREAMINFO, total samples
    data[18:26] = bits.to_bytes(8, "big")

    audio = decode(bytes(data), None, LIMITS)

    assert len(audio.waveform) == 16_000
    assert [notice.code for notice in audio.notices] == codes


def test_what_a_codec_raises_ends_the_reading_and_stays_inside():
    def breaking():
        yield np.zeros((100, 1), np.float32)
        raise MemoryError("only for the codec's own ears")

    source = Source(container="flac", rate_hz=16_000, channels=1, blocks=breaking())

    listened = listen(source, 0, LIMITS)

    assert listened.damaged
    assert len(listened.waveform) == 100


def test_a_file_that_breaks_before_the_minimum_is_undecodable_rather_than_short():
    noise = np.random.default_rng(6).uniform(-0.5, 0.5, 16_000)

    refused = refusal(written("FLAC", noise, 16_000)[:1000])

    assert refused.reason == "AUDIO_UNDECODABLE"
    assert refused.metadata == {"container": "flac"}


def test_a_stream_that_changes_its_rate_is_analysed_up_to_there():
    one, other = (muxed("adts", "aac", tone(rate_hz), rate_hz) for rate_hz in (16_000, 44_100))

    audio = decode(one + other, None, LIMITS)

    assert np.array_equal(audio.waveform, decode(one, None, LIMITS).waveform)
    assert [notice.code for notice in audio.notices] == ["AUDIO_TRUNCATED"]


@pytest.mark.parametrize(
    ("box", "actual"),
    [
        (b"stsz" + bytes(4) + b"\0\0\0\1" + b"\7\0\0\0", "117440512"),
        (b"trun" + bytes(4) + b"\7\0\0\0", "117440512"),
        (b"cmov" + bytes(8), "a compressed one"),
    ],
)
def test_an_m4a_index_that_would_fill_the_memory_is_never_built(box, actual):
    header = b"\0\0\0\x0cftypM4A "
    moov = b"\0\0\0\x1cmoov" + b"\0\0\0\x14" + box.ljust(16, b"\0")

    refused = refusal(header + b"\0\0\0\1mdat" + (16).to_bytes(8, "big") + moov)

    assert refused.reason == "AUDIO_UNDECODABLE"
    assert refused.metadata["actual"] == actual


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
@pytest.mark.parametrize("scale", [1e10, 1e19, 1e25])
def test_samples_far_beyond_full_scale_are_refused(rate_hz, scale):
    samples = tone(rate_hz) * scale

    refused = refusal(written("WAV", samples, rate_hz, "FLOAT"))

    assert refused.reason == "AUDIO_OUT_OF_RANGE"
    assert refused.metadata["limit"] == "2147483648"


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1.0, 32_768.0, 1e9])
def test_samples_of_any_usual_scale_stay_as_they_are(scale):
    samples = (tone(16_000) * scale).astype(np.float32)

    audio = decode(written("WAV", samples, 16_000, "FLOAT"), None, LIMITS)

    assert np.array_equal(audio.waveform, samples[:, 0])
