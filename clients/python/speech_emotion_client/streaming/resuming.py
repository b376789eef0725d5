"""When a broken stream is opened again, and when it is given up. Pure."""

from speech_emotion_client.errors import (
    DeadlineExceeded,
    Overloaded,
    SpeechEmotionError,
    StreamAborted,
    StreamLost,
    Unavailable,
)

FIRST, LONGEST = 0.1, 5.0
"""Seconds between two attempts: doubled from the first to the longest."""

TRANSPORT = ("CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED")
"""Codes that proxies and HTTP/2 give to a broken connection; then without a reason."""

UNHEARD = "Internal error from Core"
"""What grpc.aio puts in the place of a status that it did not wait for."""

LISTENINGS = (0.0, 0.2, 1.0, 3.0)
"""Seconds of silence before the first word, each time that an answer is asked for again."""


def is_broken(error: SpeechEmotionError, *, owes: bool) -> bool:
    """Whether the session may go on over another connection.

    A stream that is idle because nobody feeds it is over; one that has more to send was stopped by
    a slow reader.
    """
    if error.reason == "STREAM_IDLE":
        return owes
    return isinstance(error, Unavailable) or (not error.reason and error.code in TRANSPORT)


def is_unheard(error: SpeechEmotionError) -> bool:
    """Whether an answer came that grpc.aio could not tell, since it was just writing.

    A call that a proxy refuses at once ends so now and then: `grpc/aio/_call.py`, `_write`.
    """
    return error.code == "INTERNAL" and str(error) == UNHEARD


def try_again(error: SpeechEmotionError) -> bool:
    """Whether opening the session failed in a way that may pass."""
    return is_broken(error, owes=True) or isinstance(error, (DeadlineExceeded, Overloaded))


def delay(attempt: int, error: SpeechEmotionError) -> float:
    """Seconds to wait before attempt 0, 1, ...; what the server asks for goes first."""
    if attempt == 0 and error.retry_after is None:
        return 0.0
    own: float = min(LONGEST, FIRST * 2.0**attempt)
    return own if error.retry_after is None else error.retry_after


def lost(text: str, cause: SpeechEmotionError) -> StreamAborted:
    return StreamLost(
        f"The stream broke and could not be resumed: {text}",
        code=cause.code,
        reason=cause.reason,
        metadata=cause.metadata,
        request_id=cause.request_id,
    )
