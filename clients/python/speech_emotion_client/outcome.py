"""One item of several: an answer, or the reason why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import request
from .audio import AudioSource
from .errors import InvalidAudio, SpeechEmotionError, from_status
from .result import Analysis, from_response
from .v1 import emotion_service_pb2

ItemError = SpeechEmotionError | OSError
"""OSError: the file could not be read, nothing was sent."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Exactly one of `analysis` and `error` is set."""

    index: int  # place among the items, from 0
    item: AudioSource
    analysis: Analysis | None = None
    error: ItemError | None = None

    def unwrap(self) -> Analysis:
        """The analysis; raises the error if there is none."""
        if self.analysis is None:
            assert self.error is not None
            raise self.error
        return self.analysis


def build_batch(
    items: Sequence[AudioSource], call: request.Call
) -> tuple[emotion_service_pb2.BatchAnalyzeRequest, dict[int, ItemError]]:
    """One message for the items that can be read, and the errors of the others by place."""
    message, unread = emotion_service_pb2.BatchAnalyzeRequest(), dict[int, ItemError]()
    for index, item in enumerate(items):
        try:
            message.requests.append(request.build(item, call.item(index)))
        except (InvalidAudio, OSError) as error:
            unread[index] = error
    return message, unread


def from_batch(
    items: Sequence[AudioSource],
    response: emotion_service_pb2.BatchAnalyzeResponse,
    unread: Mapping[int, ItemError],
) -> list[Outcome]:
    """Every item's outcome, in the order of `items`."""
    answers = iter(response.items)
    return [
        Outcome(index, item, error=unread[index])
        if index in unread
        else _answered(index, item, next(answers))
        for index, item in enumerate(items)
    ]


def _answered(
    index: int, item: AudioSource, answer: emotion_service_pb2.BatchAnalyzeResponse.Item
) -> Outcome:
    if answer.HasField("response"):
        return Outcome(index, item, analysis=from_response(answer.response))
    return Outcome(index, item, error=from_status(answer.error))
