"""What a scripted server finds in speech, if it is not told otherwise: happiness."""

import numpy as np

from speech_emotion_client.v1 import emotion_service_pb2, result_pb2

SCORES = {"angry": 0.125, "happy": 0.625, "neutral": 0.1875, "sad": 0.0625}
"""Exact in binary, so that a test can compare them with ==."""

FRAMES = 5
DIMENSION = 4
MODEL = "models/fake@1"

Request = emotion_service_pb2.AnalyzeRequest
Response = emotion_service_pb2.AnalyzeResponse


def happy(request: Request) -> Response:
    """Finds happiness in anything; frames and embedding if asked for."""
    response = Response(emotion="happy", confidence=SCORES["happy"], scores=SCORES)
    if request.granularity == Request.GRANULARITY_FRAME:
        response.frames.CopyFrom(_frames())
    if request.extract_embedding:
        vector = np.arange(DIMENSION, dtype="<f4")
        response.embedding.CopyFrom(
            result_pb2.Tensor(
                data_type=result_pb2.Tensor.DATA_TYPE_FLOAT32,
                shape=[DIMENSION],
                data=vector.tobytes(),
            )
        )
    about = response.metadata
    about.request_id = request.request_id
    about.audio.duration_ms, about.audio.source_channel_count = 1500, 1
    about.audio.source_sample_rate_hz, about.audio.container = 16_000, "wav"
    about.provenance.model, about.provenance.runtime = MODEL, "fake"
    about.provenance.batch_size = 1
    about.provenance.cache_status = result_pb2.Provenance.CACHE_STATUS_MISS
    about.timing.inference_ms, about.timing.total_ms = 2.0, 3.0
    return response


def _frames() -> result_pb2.FrameScores:
    return result_pb2.FrameScores(
        labels=list(SCORES),
        frame_count=FRAMES,
        frame_period_ms=20,
        first_frame_offset_ms=12.5,
        scores=list(SCORES.values()) * FRAMES,
    )
