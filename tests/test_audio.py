"""Every container that is announced decodes to the sound that went in."""

import io
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import soundfile
import soxr

from server.audio import CONTAINERS, AudioLimits, RawFormat, decode
from server.audio.resample import Resampler, mix

LIMITS = AudioLimits()


def tone(rate_hz, seconds=1.0, channels=1):
    """440 Hz, each further channel half as loud as the one before."""
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * seconds)) / rate_hz)
    return np.stack([wave / 2**channel for channel in range(channels)], axis=1).astype(np.float32)


def written(kind, samples, rate_hz, subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


def muxed(kind, codec, samples, rate_hz, layout="mono"):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as out:
        track = out.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate_hz
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return file.getvalue()


def film_without_sound():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        track = out.add_stream("mpeg4", rate=10)
        track.width = track.height = 16
        out.mux(track.encode(av.VideoFrame(16, 16, "yuv420p")))
        out.mux(track.encode(None))
    return file.getvalue()


def one_of_each():
    return {
        "wav": written("WAV", tone(16_000), 16_000),
        "flac": written("FLAC", tone(44_100), 44_100),
        "ogg/vorbis": written("OGG", tone(22_050), 22_050, "VORBIS"),
        "ogg/opus": written("OGG", tone(48_000), 48_000, "OPUS"),
        "mp3": written("MP3", tone(24_000), 24_000),
        "aiff": written("AIFF", tone(16_000), 16_000),
        "au": written("AU", tone(16_000), 16_000),
        "caf": written("CAF", tone(16_000), 16_000),
        "m4a": muxed("ipod", "aac", tone(44_100), 44_100),
        "webm": muxed("webm", "libopus", tone(48_000), 48_000),
        "aac": muxed("adts", "aac", tone(16_000), 16_000),
        "amr": muxed("amr", "libopencore_amrnb", tone(8_000), 8_000),
    }


FILES = one_of_each()


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_announced_container_is_recognised_and_sounds_as_recorded(container):
    data = FILES[container]

    audio = decode(data, None, LIMITS)

    spectrum = np.abs(np.fft.rfft(audio.waveform[4000:12_000]))
    assert audio.container == container
    assert spectrum.argmax() * 2 == 440
    assert abs(len(audio.waveform) - 16_000) < 1500  # AAC pads with whole frames of 1024
    assert audio.waveform.dtype == np.float32
    assert audio.source_channels == 1


def test_sixteen_kilohertz_passes_without_changing_a_bit():
    noise = np.random.default_rng(1).integers(-32768, 32768, 20_001).astype(np.int16)

    audio = decode(written("WAV", noise, 16_000), None, LIMITS)

    assert np.array_equal(audio.waveform, noise.astype(np.float32) / 32768)
    assert audio.duration_ms == 1250


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_reading_in_blocks_gives_what_libsndfile_gives_at_once(kind):
    data = written(kind, tone(16_000, 2), 16_000)

    audio = decode(data, None, LIMITS)

    at_once, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    assert np.allclose(audio.waveform, at_once, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [4000, 8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_in_blocks_leaves_no_seams(rate_hz):
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, rate_hz).astype(np.float32)

    audio = decode(written("WAV", noise, rate_hz, "FLOAT"), None, LIMITS)

    at_once = soxr.resample(noise, rate_hz, 16_000, quality="HQ")
    assert np.allclose(audio.waveform, at_once, rtol=0, atol=1e-6)
    assert audio.source_rate_hz == rate_hz


@pytest.mark.parametrize("piece", [1, 997, 4096])
def test_the_size_of_the_pieces_does_not_matter_to_the_resampler(piece):
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, 9000).astype(np.float32)
    resampler = Resampler(44_100)

    pieces = [resampler.push(noise[at : at + piece]) for at in range(0, len(noise), piece)]

    heard = np.concatenate([*pieces, resampler.finish()])
    assert np.allclose(heard, soxr.resample(noise, 44_100, 16_000), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_many_channels_become_their_mean(channels):
    block = np.random.default_rng(4).uniform(-1, 1, (500, channels)).astype(np.float32)

    mixed = mix(block)

    assert np.allclose(mixed, block.mean(axis=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("index", "share"), [(0, 0.75), (1, 1.0), (2, 0.5)])
def test_a_caller_may_choose_a_channel_of_a_container(index, share):
    samples = tone(16_000, channels=2)

    audio = decode(
        written("WAV", samples, 16_000, "FLOAT"),
        RawFormat(encoding=None, channel_index=index),
        LIMITS,
    )

    assert np.allclose(audio.waveform, samples[:, 0] * share, rtol=0, atol=1e-6)
    assert audio.source_channels == 2


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("mov", "pcm_s24le"), ("mov", "pcm_u8"), ("ipod", "alac"), ("matroska", "libmp3lame")],
)
def test_ffmpeg_codecs_of_every_sample_type_are_scaled_to_one(kind, codec):
    samples = tone(44_100, channels=2)

    audio = decode(muxed(kind, codec, samples, 44_100, "stereo"), None, LIMITS)

    assert np.abs(audio.waveform[2000:14_000]).max() == pytest.approx(0.3, abs=0.02)
    assert audio.source_channels == 2


def test_an_id3_tag_does_not_hide_what_follows():
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)

    audio = decode(tag + FILES["mp3"], None, LIMITS)

    assert audio.container == "mp3"
    assert len(audio.waveform) == 16_000


@pytest.mark.parametrize("value", [0.0, 0.25, 1e-30])
def test_silence_and_a_constant_stay_as_they_are(value):
    samples = np.full(8000, value, np.float32)

    audio = decode(written("WAV", samples, 16_000, "FLOAT"), None, LIMITS)

    assert np.array_equal(audio.waveform, samples)
    assert audio.notices == ()


@pytest.mark.parametrize(
    ("kind", "kept"), [("WAV", 0.6), ("AIFF", 0.6), ("FLAC", 0.6), ("MP3", 0.6), ("OGG", 0.6)]
)
def test_a_file_that_breaks_off_is_analysed_up_to_there(kind, kept):
    noise = np.random.default_rng(5).uniform(-0.3, 0.3, 32_000)
    data = written(kind, noise, 16_000)

    audio = decode(data[: int(len(data) * kept)], None, LIMITS)

    assert [notice.code for notice in audio.notices] == ["AUDIO_TRUNCATED"]
    assert 12_000 < len(audio.waveform) < 20_000


def test_a_film_clip_that_breaks_off_is_analysed_up_to_there():
    data = FILES["webm"]

    audio = decode(data[: len(data) // 2], None, LIMITS)

    assert [notice.code for notice in audio.notices] == ["AUDIO_TRUNCATED"]
    assert 4000 < len(audio.waveform) < 12_000


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
def test_a_wav_written_to_a_pipe_is_whole(size):
    data = bytearray(FILES["wav"])
    data[4:8] = size.to_bytes(4, "little")
    data[40:44] = (0xFFFF_FFFF).to_bytes(4, "little")

    audio = decode(bytes(data), None, LIMITS)

    assert len(audio.waveform) == 16_000
    assert audio.notices == ()


@pytest.mark.parametrize(
    ("peak", "codes"), [(0.9, []), (1.0, ["AUDIO_CLIPPED"]), (30_000.0, ["AUDIO_CLIPPED"])]
)
def test_samples_beyond_full_scale_are_kept_and_mentioned(peak, codes):
    square = np.where(np.arange(16_000) % 100 < 50, peak, -peak).astype(np.float32)

    audio = decode(written("WAV", square, 16_000, "FLOAT"), None, LIMITS)

    assert [notice.code for notice in audio.notices] == codes
    assert np.array_equal(audio.waveform, square)


@pytest.mark.parametrize(("rate_hz", "codes"), [(8000, ["RESAMPLED_FROM_LOW_RATE"]), (44_100, [])])
def test_a_low_rate_is_mentioned(rate_hz, codes):
    data = written("WAV", tone(rate_hz), rate_hz)

    audio = decode(data, None, LIMITS)

    assert [notice.code for notice in audio.notices] == codes


def test_threads_do_not_disturb_each_other():
    files = list(FILES.values()) * 4
    alone = [decode(data, None, LIMITS).waveform for data in files]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: decode(data, None, LIMITS).waveform, files))

    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
