"""A WAV file as the messages of AnalyzeStream, one JSON object a line; its samples as 16 bits.

python3 docs/wav_to_stream.py speech.wav | buf curl ... -d @- .../AnalyzeStream
"""

import base64
import json
import sys
import wave
from collections.abc import Iterator


def to_16_bits(data: bytes, width: int) -> bytes:
    """The upper two bytes of each sample, of which there are `width`; a single one is unsigned."""
    samples = bytearray(2 * (len(data) // width))
    if width == 1:
        samples[1::2] = bytes(value ^ 0x80 for value in data)
    else:
        samples[0::2], samples[1::2] = data[width - 2 :: width], data[width - 1 :: width]
    return bytes(samples)


def messages(path: str) -> Iterator[dict[str, object]]:
    with wave.open(path) as file:
        rate, width = file.getframerate(), file.getsampwidth()
        described = {
            "encoding": "ENCODING_PCM_S16LE",
            "sampleRateHz": rate,
            "channelCount": file.getnchannels(),
        }
        yield {"config": {"audioFormat": described, "voiceActivity": {}, "pacing": "PACING_BULK"}}
        while data := file.readframes(rate // 10):
            yield {"audio": {"data": base64.b64encode(to_16_bits(data, width)).decode()}}
    yield {"control": {"finish": {}}}


try:
    for message in messages(sys.argv[1]):
        print(json.dumps(message))
except (wave.Error, EOFError) as error:
    sys.exit(f"{sys.argv[1]} is no WAV file of integer samples: {error}")
