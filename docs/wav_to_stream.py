"""A WAV file of 16-bit samples as the messages of AnalyzeStream, one JSON object a line.

python3 docs/wav_to_stream.py speech.wav | buf curl ... -d @- .../AnalyzeStream
"""

import base64
import json
import sys
import wave

with wave.open(sys.argv[1]) as file:
    rate, channels = file.getframerate(), file.getnchannels()
    described = {"encoding": "ENCODING_PCM_S16LE", "sampleRateHz": rate, "channelCount": channels}
    config = {"audioFormat": described, "voiceActivity": {}, "pacing": "PACING_BULK"}
    print(json.dumps({"config": config}))
    while data := file.readframes(rate // 10):
        print(json.dumps({"audio": {"data": base64.b64encode(data).decode()}}))
print(json.dumps({"control": {"finish": {}}}))
