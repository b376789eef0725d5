"""The one table: what callers are told, and what they are never told."""

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from grpc import StatusCode

import batcher
from server.errors import CacheMiss, Failure, ModelNotFound, failure_of
from server.speech import InvalidInput


def detail(failure: Failure, kind):
    """The detail of that kind; exactly one must be there."""
    found = [any_ for any_ in failure.status.details if any_.Is(kind.DESCRIPTOR)]
    assert len(found) == 1
    message = kind()
    found[0].Unpack(message)
    return message


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidInput("AUDIO_EMPTY", "No audio."), StatusCode.INVALID_ARGUMENT, "AUDIO_EMPTY"),
        (ModelNotFound("models/x"), StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        (CacheMiss("Nothing cached."), StatusCode.FAILED_PRECONDITION, "CACHE_MISS"),
        (batcher.QueueFull("Full.", 0.5), StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (batcher.TenantLimit("Yours.", 0.5), StatusCode.RESOURCE_EXHAUSTED, "TENANT_LIMIT"),
        (
            batcher.DeadlineUnmeetable("Late.", by_load=True, retry_after=0.5),
            StatusCode.RESOURCE_EXHAUSTED,
            "DEADLINE_UNMEETABLE",
        ),
        (
            batcher.DeadlineUnmeetable("Late."),
            StatusCode.DEADLINE_EXCEEDED,
            "DEADLINE_UNMEETABLE",
        ),
        (batcher.DeadlineExpired(), StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
        (batcher.Closed(), StatusCode.UNAVAILABLE, "DRAINING"),
        (batcher.BatchFailed(), StatusCode.INTERNAL, "INTERNAL"),
        (ZeroDivisionError("secret"), StatusCode.INTERNAL, "INTERNAL"),
    ],
)
def test_every_failure_has_its_status_and_says_its_reason(error, code, reason):
    failure = failure_of(error)

    assert failure.code is code
    assert failure.status.code == code.value[0]
    info = detail(failure, ErrorInfo)
    assert (info.reason, info.domain) == (reason, "speechemotion")


def test_bad_input_names_the_field_and_both_numbers():
    error = InvalidInput("AUDIO_TOO_LONG", "Too long.", field="audio_data", limit=60, actual=61)

    failure = failure_of(error)

    [violation] = detail(failure, BadRequest).field_violations
    assert (violation.field, violation.reason) == ("audio_data", "AUDIO_TOO_LONG")
    metadata = detail(failure, ErrorInfo).metadata
    assert metadata == {"field": "audio_data", "limit": "60", "actual": "61"}


def test_shed_load_says_when_to_come_back_to_people_and_to_grpc():
    failure = failure_of(batcher.QueueFull("Full.", 0.25))

    assert detail(failure, RetryInfo).retry_delay.ToMilliseconds() == 250
    assert dict(failure.trailers)["grpc-retry-pushback-ms"] == "250"


def test_bad_input_is_not_worth_retrying_so_no_pushback_is_sent():
    failure = failure_of(InvalidInput("AUDIO_EMPTY", "No audio."))

    assert [key for key, _ in failure.trailers] == ["grpc-status-details-bin"]


def test_a_missing_model_is_named():
    failure = failure_of(ModelNotFound("models/big"))

    assert detail(failure, ResourceInfo).resource_name == "models/big"


def test_an_unforeseen_error_shows_an_id_and_nothing_else():
    failure = failure_of(ZeroDivisionError("the secret"))

    sent = failure.status.SerializeToString() + failure.text.encode()
    assert b"secret" not in sent
    assert b"ZeroDivision" not in sent
    assert failure.metadata["id"] in failure.text


def test_a_failed_batch_shows_nothing_of_its_cause():
    error = batcher.BatchFailed("CUDA error at line 7")
    error.__cause__ = RuntimeError("the secret")

    sent = failure_of(error).status.SerializeToString()

    assert b"secret" not in sent
    assert b"CUDA" not in sent
