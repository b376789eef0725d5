"""What bulk goes without under load, and what its callers are told."""

from math import inf

import pytest
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest

from batcher import Priority
from server.choices import relief_of
from server.config import Settings
from server.service.degradation import Relief, Step, refusal, scores_only, step_for
from server.service.query import read_query

RELIEF = Relief(scores_only_after=1.0, refuse_bulk_after=3.0)


@pytest.mark.parametrize(
    ("drain_time", "step"),
    [(0.0, None), (1.0, None), (1.1, Step.SCORES_ONLY), (3.1, Step.BULK_REFUSED)],
)
def test_the_more_waits_the_less_bulk_gets(drain_time, step):
    assert step_for(Priority.BULK, drain_time, RELIEF) is step


@pytest.mark.parametrize("priority", [Priority.INTERACTIVE, Priority.STREAM])
def test_only_bulk_goes_without(priority):
    assert step_for(priority, inf, RELIEF) is None


def test_the_refused_are_told_to_come_back_when_bulk_is_welcome_again():
    assert refusal(5.0, RELIEF).retry_after == 2.0
    assert refusal(3.01, RELIEF).retry_after == 0.1


def test_by_default_nobody_goes_without():
    relief = relief_of(Settings())

    assert step_for(Priority.BULK, 1e9, relief) is None


def test_scores_are_what_is_left():
    wish = AnalyzeRequest(
        audio_data=b"any", granularity=AnalyzeRequest.GRANULARITY_FRAME, extract_embedding=True
    )

    granted, notices = scores_only(read_query(wish))

    assert not granted.frames
    assert not granted.embedding
    assert [notice.code for notice in notices] == ["DEGRADED_SCORES_ONLY"]


def test_who_wants_only_scores_is_told_nothing():
    query = read_query(AnalyzeRequest(audio_data=b"any"))

    assert scores_only(query) == (query, ())
